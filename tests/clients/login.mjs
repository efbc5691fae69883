// One login by node-postgres, and DDL.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const pg = require("pg");

const client = new pg.Client();
try {
  await client.connect();
  await client.query("ALTER TABLE t ADD COLUMN n int");
  console.log((await client.query("SELECT current_user AS name")).rows[0].name);
  await client.end();
} catch (error) {
  console.log(error.code, error.message);
  process.exitCode = 1;
}
