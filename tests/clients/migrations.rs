//! Migration tools as released: Alembic with SQLAlchemy, and Django.

use crate::{both, python, succeeded};

#[test]
fn alembic_and_sqlalchemy() {
    for driver in ["psycopg", "psycopg2", "asyncpg"] {
        let Some(_) = python(driver, "alembic_.py") else { continue };
        let Some(script) = python("alembic, sqlalchemy", "alembic_.py") else { return };
        both(&format!("alembic_{driver}"), 12, |way| {
            let mut command = script(way);
            command.env("DRIVER", driver);
            succeeded(command)
        });
    }
}

#[test]
fn django() {
    let Some(script) = python("django", "django_.py") else { return };
    both("django", 20, |way| succeeded(script(way)));
}
