// The side of a tool's program that talks to run.py, for tools in JavaScript; serve.py says how.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

export const STEPS = JSON.parse(readFileSync(process.env.STEPS, "utf8"));
export const CONNECTION = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  database: process.env.PGDATABASE,
};
export const URL_ = `postgres://${CONNECTION.user}@${CONNECTION.host}:${CONNECTION.port}/${CONNECTION.database}`;

// What a tool prints goes to standard error, never among the answers.
const write = process.stdout.write.bind(process.stdout);
process.stdout.write = (...words) => process.stderr.write(...words);
const say = (answer) => write(JSON.stringify(answer) + "\n");

// `steps`: the names of the migrations, in order. `history`: SQL without times and numbers that differ from run to run.
export async function serve({ steps, history, up, down }) {
  say({ steps, down: down !== undefined, history });
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, count] = line.split(" ");
    try {
      await (command === "up" ? up(Number(count)) : down());
      say({ ok: true });
    } catch (error) {
      console.error(error);
      const cause = error.cause ?? error.parent ?? error.driverError ?? error;
      say({ ok: false, error: `${error.name} ${cause.code ?? ""} ${error.message}` });
    }
  }
  process.exit(0);
}
