// Drizzle with node-postgres. One transaction over all pending migrations; it cannot go back.
import { mkdirSync, writeFileSync } from "node:fs";
import { drizzle } from "drizzle-orm/node-postgres";
import { migrate } from "drizzle-orm/node-postgres/migrator";
import pg from "pg";
import { CONNECTION, STEPS, serve } from "./serve.mjs";

mkdirSync("drizzle/meta", { recursive: true });

// The folder as drizzle-kit writes it.
async function up(count) {
  const entries = Object.entries(STEPS).slice(0, count).map(([step, { up: statements }], idx) => {
    const tag = `${String(idx).padStart(4, "0")}_${step}`;
    writeFileSync(`drizzle/${tag}.sql`, statements.map((statement) => `${statement};`).join("--> statement-breakpoint\n"));
    return { idx, version: "7", when: 1700000000000 + idx, tag, breakpoints: true };
  });
  writeFileSync("drizzle/meta/_journal.json", JSON.stringify({ version: "7", dialect: "postgresql", entries }));
  const pool = new pg.Pool(CONNECTION);
  try {
    await migrate(drizzle({ client: pool }), { migrationsFolder: "drizzle" });
  } finally {
    await pool.end();
  }
}

await serve({
  steps: Object.keys(STEPS),
  history: "SELECT hash, created_at FROM drizzle.__drizzle_migrations ORDER BY id",
  up,
});
