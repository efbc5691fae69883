// postgres.js: it pipelines on its own, and describes first.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const postgres = require("postgres");

const say = (...words) => console.log(...words);
const sql = postgres({ max: 1, onnotice: () => {} });

async function attempt(query) {
  try {
    const result = await query;
    say("ok", result.command, result.count);
  } catch (error) {
    say(error.code, error.message);
  }
}

await attempt(sql`ALTER TABLE big ADD COLUMN a int`);
await attempt(sql`ALTER TABLE big ADD COLUMN a int`);
await attempt(sql`CREATE INDEX big_n ON big (n)`);
await attempt(sql`CREATE INDEX CONCURRENTLY big_v ON big (v)`);
await attempt(sql`CREATE UNIQUE INDEX twice ON big (n)`);
await attempt(sql`DROP INDEX big_v`);
await attempt(sql.unsafe("ALTER TABLE big ADD COLUMN b int; SELECT 1"));
await attempt(sql.unsafe("ALTER TABLE big ADD COLUMN c int", [], { prepare: true }));
say((await Promise.all([sql`SELECT ${1}::int AS n`, sql`ALTER TABLE big ADD COLUMN d int`, sql`SELECT ${2}::int AS n`])).length);
await attempt(
  sql.begin(async (tx) => {
    await tx`ALTER TABLE big ADD COLUMN e int`;
    await tx.savepoint((s) => s`ALTER TABLE big ADD COLUMN e int`).catch((error) => say(error.code));
    await tx`CREATE INDEX big_e ON big (e)`;
    return tx`SELECT 1`;
  }),
);
await attempt(
  sql.begin((tx) => [tx`ALTER TABLE big ADD COLUMN f int`, tx`SELECT 1`, tx`ALTER TABLE big ADD COLUMN a int`]),
);
const blocker = postgres({ max: 1, port: Number(process.env.DIRECT_PORT) });
const held = await blocker.reserve();
await held.unsafe("BEGIN; SELECT FROM big LIMIT 1");
const query = sql`ALTER TABLE big ADD COLUMN g int`;
setTimeout(() => query.cancel(), 400);
await attempt(query);
// Its end is awaited: a connection that is still reserved when end() is called would never be given back.
const released = new Promise((resolve) => setTimeout(resolve, 400)).then(() => held.unsafe("COMMIT")).then(() => held.release());
await attempt(sql`ALTER TABLE big ADD COLUMN g int`);
say((await sql`SELECT count(g)::int AS n FROM big`)[0].n);
await released;
await blocker.end();
await sql.end();
