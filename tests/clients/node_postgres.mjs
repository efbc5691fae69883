// node-postgres: simple, parameterised and named statements, many at once, LISTEN, cancels, cursors, COPY.
import { createRequire } from "node:module";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";

// NODE_PATH counts for require only.
const require = createRequire(import.meta.url);
const pg = require("pg");
const Cursor = require("pg-cursor");
const copy = require("pg-copy-streams");

const say = (...words) => console.log(...words);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function connect(options = {}) {
  const client = new pg.Client(options);
  await client.connect();
  return client;
}

async function attempt(client, query) {
  try {
    const result = await client.query(query);
    say("ok", (Array.isArray(result) ? result : [result]).map((r) => `${r.command} ${r.rowCount}`).join(", "));
  } catch (error) {
    say(error.code, error.severity, error.position, error.message);
  }
}

// A transaction that has read `big`; call what it gives to end it.
async function inTheWay() {
  const blocker = await connect({ port: Number(process.env.DIRECT_PORT) });
  await blocker.query("BEGIN");
  await blocker.query("SELECT FROM big LIMIT 1");
  return async () => {
    await blocker.query("COMMIT");
    await blocker.end();
  };
}

async function statements(client) {
  await attempt(client, "ALTER TABLE big ADD COLUMN a int");
  await attempt(client, "ALTER TABLE big ADD COLUMN a int");
  await attempt(client, "CREATE INDEX big_n ON big (n)");
  await attempt(client, "CREATE INDEX CONCURRENTLY big_v ON big (v)");
  await attempt(client, "DROP INDEX big_v");
  await attempt(client, "CREATE UNIQUE INDEX twice ON big (n)");
  await attempt(client, "SELECT 1; ALTER TABLE big ADD COLUMN b int; SELECT 2");
  await attempt(client, "SELECT 1; ALTER TABLE big ADD COLUMN c nothing; SELECT 2");
  // An empty list of parameters does not make it extended; a name, or queryMode, does.
  await attempt(client, { text: "ALTER TABLE big ADD COLUMN d int", queryMode: "extended" });
  await attempt(client, { text: "ALTER TABLE big ADD COLUMN d int", queryMode: "extended" });
  await attempt(client, { text: "CREATE INDEX big_d ON big (d)", queryMode: "extended" });
  for (let i = 0; i < 3; i++) {
    await attempt(client, { name: "set default", text: "ALTER TABLE big ALTER COLUMN d SET DEFAULT 1" });
    await attempt(client, { name: "select", text: "SELECT count(*) FROM big WHERE id < $1", values: [i] });
  }
}

async function transactions(client) {
  for (const end of ["COMMIT", "ROLLBACK"]) {
    await client.query("BEGIN");
    await attempt(client, `ALTER TABLE big ADD COLUMN t_${end.toLowerCase()} int`);
    await attempt(client, { text: `CREATE INDEX big_${end} ON big (t_${end.toLowerCase()})`, queryMode: "extended" });
    await attempt(client, end);
  }
  await client.query("BEGIN");
  await attempt(client, "ALTER TABLE big ADD COLUMN a int");
  await attempt(client, { text: "ALTER TABLE big ADD COLUMN t int", queryMode: "extended" });
  await attempt(client, "ROLLBACK");
}

// Many at once, none awaited before the next is given.
async function together(client) {
  const pending = [];
  for (let i = 0; i < 20; i++) {
    pending.push(client.query("SELECT $1::int AS n", [i]).then((r) => r.rows[0].n));
    if (i % 5 === 0) pending.push(client.query(`ALTER TABLE big ADD COLUMN m${i} int`).then((r) => r.command));
    if (i % 7 === 0) pending.push(client.query("SELECT 1 / 0").catch((error) => error.code));
  }
  say((await Promise.all(pending)).join(" "));
}

async function waits(client) {
  let end = await inTheWay();
  setTimeout(end, 500);
  await attempt(client, "ALTER TABLE big ADD COLUMN w1 int");
  end = await inTheWay();
  await client.query("SET lock_timeout = '150ms'");
  await attempt(client, "ALTER TABLE big ADD COLUMN w2 int");
  await attempt(client, { text: "ALTER TABLE big ADD COLUMN w2 int", queryMode: "extended" });
  await client.query("RESET lock_timeout");
  // A cancel from a second connection, as the protocol has it.
  const canceller = new pg.Client();
  setTimeout(() => canceller.connection.connect(Number(process.env.PGPORT), process.env.PGHOST), 400);
  canceller.connection.on("connect", () => canceller.connection.cancel(client.processID, client.secretKey));
  canceller.connection.on("error", () => {});
  await attempt(client, "ALTER TABLE big ADD COLUMN w2 int");
  // A signal that meets a backend between two statements is lost, as anywhere: asked again until it strikes.
  const other = await connect();
  let over = false;
  const cancelling = (async () => {
    for (await sleep(300); !over; await sleep(300)) {
      await other.query("SELECT pg_cancel_backend($1)", [client.processID]);
    }
  })();
  await attempt(client, { text: "ALTER TABLE big ADD COLUMN w2 int", queryMode: "extended" });
  over = true;
  await cancelling;
  await other.end();
  await end();
  await attempt(client, "ALTER TABLE big ADD COLUMN w2 int");
}

async function listening(client) {
  const heard = [];
  client.on("notification", (n) => heard.push(`${n.channel} ${n.payload}`));
  await client.query("LISTEN news");
  const talker = await connect();
  const end = await inTheWay();
  const change = client.query("ALTER TABLE big ADD COLUMN l int");
  await sleep(300);
  await talker.query("NOTIFY news, 'meanwhile'");
  for (let i = 0; i < 100 && heard.length < 1 && process.env.DIRECT_PORT !== process.env.PGPORT; i++) await sleep(20);
  await end();
  await change;
  await talker.query("NOTIFY news, 'after'");
  for (let i = 0; i < 250 && heard.length < 2; i++) await sleep(20);
  say(heard.join(", "));
  await talker.end();
}

async function streams(client) {
  await client.query("CREATE TABLE copied (id int, v text)");
  const lines = Readable.from((function* () { for (let i = 0; i < 20000; i++) yield `${i}\t${"x".repeat(40)}\n`; })());
  await pipeline(lines, client.query(copy.from("COPY copied FROM STDIN")));
  await attempt(client, "ALTER TABLE copied ADD COLUMN w int");
  let bytes = 0;
  for await (const chunk of client.query(copy.to("COPY copied TO STDOUT"))) bytes += chunk.length;
  say(bytes);
  const cursor = client.query(new Cursor("SELECT id FROM big ORDER BY id"));
  let sum = 0;
  for (let rows = await cursor.read(5000); rows.length; rows = await cursor.read(5000)) for (const row of rows) sum += row.id;
  await cursor.close();
  say(sum);
}

const client = await connect();
for (const part of [statements, transactions, together, waits, listening, streams]) {
  say("#", part.name);
  await part(client);
}
await client.end();
