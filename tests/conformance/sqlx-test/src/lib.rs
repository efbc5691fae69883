//! Stands in for the helper crate of sqlx's own tests, which sqlx's package on crates.io does not contain. It has
//! connections, and tests of a type that are pairs of an SQL expression and the expected value.
//!
//! Invariant: the names and the forms are those that the released tests use; the code is written anew.

pub use paste::paste;

use sqlx::pool::{Pool, PoolOptions};
use sqlx::{Connection, Database};

/// Logging, once for a process.
pub fn setup_if_needed() {
    let _ = env_logger::builder().is_test(true).try_init();
}

fn url() -> String {
    setup_if_needed();
    std::env::var("DATABASE_URL").expect("DATABASE_URL")
}

/// A connection to `DATABASE_URL`.
pub async fn new<DB: Database>() -> sqlx::Result<DB::Connection> {
    DB::Connection::connect(&url()).await
}

/// A pool of a few of them.
pub async fn pool<DB: Database>() -> sqlx::Result<Pool<DB>> {
    PoolOptions::<DB>::new().max_connections(5).connect(&url()).await
}

/// A type in both protocols: as a parameter and a result of a prepared statement, and as a result in text.
///
/// `==` compares on the server with IS NOT DISTINCT FROM, `~=` with that operator, `@=` what has neither as text.
#[macro_export]
macro_rules! test_type {
    ($name:ident<$ty:ty>($db:ident, $sql:literal, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>($db, $sql, $($text == $value),+));
        $crate::test_decode_type!($name<$ty>($db, $($text == $value),+));
    };
    ($name:ident<$ty:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>($db, $($text == $value),+));
        $crate::test_decode_type!($name<$ty>($db, $($text == $value),+));
    };
    ($name:ident<$ty:ty>($db:ident, $($text:literal ~= $value:expr),+ $(,)?)) => {
        $crate::test_type!($name<$ty>($db, "SELECT ({0} ~= $1)::int4, {0}, $2", $($text == $value),+));
    };
    ($name:ident<$ty:ty>($db:ident, $($text:literal @= $value:expr),+ $(,)?)) => {
        $crate::test_type!($name<$ty>($db, "SELECT ({0}::text = $1::text)::int4, {0}, $2", $($text == $value),+));
    };
    ($name:ident($($rest:tt)*)) => {
        $crate::test_type!($name<$name>($($rest)*));
    };
}

/// The server finds the parameter equal to the expression, and gives both back as the value.
#[macro_export]
macro_rules! test_prepared_type {
    ($name:ident<$ty:ty>($db:ident, $sql:literal, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::paste! {
            #[sqlx_macros::test]
            async fn [<prepared_ $name>]() -> anyhow::Result<()> {
                use sqlx::Row as _;
                let mut connection = $crate::new::<$db>().await?;
                $(
                    let sql = sqlx::AssertSqlSafe(format!($sql, $text));
                    let row = sqlx::query(sql).bind($value).bind($value).fetch_one(&mut connection).await?;
                    assert_eq!(row.try_get::<i32, _>(0)?, 1, "the server finds {} another value", $text);
                    assert!($value == row.try_get::<$ty, _>(1)?, "{} came as another value", $text);
                    assert!($value == row.try_get::<$ty, _>(2)?, "{} went and came as another value", $text);
                )+
                Ok(())
            }
        }
    };
    ($name:ident<$ty:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>(
            $db, "SELECT ({0} IS NOT DISTINCT FROM $1)::int4, {0}, $2", $($text == $value),+
        ));
    };
}

/// The server gives the expression as the value, in the simple protocol.
#[macro_export]
macro_rules! test_decode_type {
    ($name:ident<$ty:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::paste! {
            #[sqlx_macros::test]
            async fn [<unprepared_ $name>]() -> anyhow::Result<()> {
                use sqlx::{Executor as _, Row as _};
                let mut connection = $crate::new::<$db>().await?;
                $(
                    let row = connection.fetch_one(sqlx::AssertSqlSafe(format!("SELECT {}", $text))).await?;
                    assert!($value == row.try_get::<$ty, _>(0)?, "{} came as another value", $text);
                )+
                Ok(())
            }
        }
    };
}
