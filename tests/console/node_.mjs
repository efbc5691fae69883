// The console by node-postgres: text and parameters, prepared statements, errors, a pool.
import assert from "node:assert";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const pg = require("pg");

const client = new pg.Client();
await client.connect();
const { rows, fields } = await client.query("SHOW SESSIONS");
assert.deepStrictEqual(fields.slice(0, 2).map((field) => field.name), ["number", "user"]);
assert(rows[0].since instanceof Date && rows[0].console === true);
const named = { name: "one", text: "SELECT $1::text AS t", values: ["x"] };
assert.deepStrictEqual((await client.query(named)).rows, [{ t: "x" }]);
assert.deepStrictEqual((await client.query(named)).rows, [{ t: "x" }]);
await assert.rejects(client.query("SELECT * FROM orders"), { code: "42P01" });
await client.end();

const pool = new pg.Pool({ max: 4 });
await Promise.all(Array.from({ length: 20 }, () => pool.query("SHOW CONFIG LIKE $$locks.%$$")));
await pool.end();
console.log("node-postgres");
