// node-pg-migrate. Its default is one transaction over all pending migrations, and an advisory lock.
import { mkdirSync, writeFileSync } from "node:fs";
import { runner } from "node-pg-migrate";
import { URL_, serve } from "./serve.mjs";

const MIGRATIONS = {
  nullable_column: ['pgm.addColumns("orders", { comment: "text" });', 'pgm.dropColumns("orders", "comment");'],
  constant_default: [
    'pgm.addColumns("orders", { priority: { type: "integer", notNull: true, default: 0 } });',
    'pgm.dropColumns("orders", "priority");',
  ],
  volatile_default: [
    'pgm.addColumns("baskets", { token: { type: "uuid", notNull: true, default: pgm.func("gen_random_uuid()") } });',
    'pgm.dropColumns("baskets", "token");',
  ],
  index: [
    'pgm.createIndex("orders", "email", { name: "orders_email" });',
    'pgm.dropIndex("orders", "email", { name: "orders_email" });',
  ],
  unique: [
    'pgm.addConstraint("orders", "orders_number", { unique: "number" });',
    'pgm.dropConstraint("orders", "orders_number");',
  ],
  foreign_key: [
    'pgm.addConstraint("orders", "orders_shop", { foreignKeys: { columns: "shop_id", references: "shops(id)" } });',
    'pgm.dropConstraint("orders", "orders_shop");',
  ],
  not_null: [
    'pgm.alterColumn("orders", "email", { notNull: true });',
    'pgm.alterColumn("orders", "email", { notNull: false });',
  ],
  check: [
    'pgm.addConstraint("orders", "orders_amount", { check: "amount >= 0" });',
    'pgm.dropConstraint("orders", "orders_amount");',
  ],
  rename_column: ['pgm.renameColumn("orders", "note", "remark");', 'pgm.renameColumn("orders", "remark", "note");'],
  drop_column: ['pgm.dropColumns("orders", "old_note");', 'pgm.addColumns("orders", { old_note: "text" });'],
  column_index_key: [
    `pgm.addColumns("orders", { region_id: { type: "bigint", references: "regions" } });
    pgm.createIndex("orders", ["region_id", "email"], { name: "orders_region" });`,
    'pgm.dropColumns("orders", "region_id");',
  ],
  table_and_orders: [
    `pgm.createTable("refunds", { id: "id", order_id: { type: "bigint", notNull: true, references: "orders" } });
    pgm.createIndex("refunds", "order_id");
    pgm.addColumns("orders", { refunded: "numeric(12, 2)" });
    pgm.addConstraint("orders", "orders_refunded", { check: "refunded >= 0" });
    pgm.createIndex("orders", ["email", "created_at"], { name: "orders_created" });`,
    `pgm.dropIndex("orders", "", { name: "orders_created" });
    pgm.dropColumns("orders", "refunded");
    pgm.dropTable("refunds");`,
  ],
  column_and_index: [
    `pgm.addColumns("baskets", { tracking: { type: "uuid", notNull: true, default: pgm.func("gen_random_uuid()") } });
    pgm.createIndex("baskets", "tracking", { name: "baskets_tracking" });`,
    'pgm.dropColumns("baskets", "tracking");',
  ],
  enum: [
    `pgm.createType("order_kind", ["web", "phone"]);
    pgm.addColumns("orders", { kind: { type: "order_kind", notNull: true, default: "web" } });`,
    'pgm.dropColumns("orders", "kind"); pgm.dropType("order_kind");',
  ],
  filled_column: [
    `pgm.addColumns("baskets", { label: { type: "text", default: "" } });
    pgm.sql("UPDATE baskets SET label = 'basket ' || id");
    pgm.alterColumn("baskets", "label", { notNull: true });`,
    'pgm.dropColumns("baskets", "label");',
  ],
  type: [
    'pgm.alterColumn("baskets", "pieces", { type: "bigint" });',
    'pgm.alterColumn("baskets", "pieces", { type: "integer" });',
  ],
};

mkdirSync("migrations");
const run = (direction) =>
  runner({
    databaseUrl: URL_,
    dir: "migrations",
    migrationsTable: "pgmigrations",
    direction,
    count: Infinity,
    // The defaults of its command.
    singleTransaction: true,
    checkOrder: true,
  });

async function up(count) {
  Object.entries(MIGRATIONS).slice(0, count).forEach(([step, [forth, back]], index) => {
    const text = `exports.up = (pgm) => { ${forth} };\nexports.down = (pgm) => { ${back} };\n`;
    writeFileSync(`migrations/${1700000000000 + index}_${step}.cjs`, text);
  });
  await run("up");
}

await serve({
  steps: Object.keys(MIGRATIONS),
  history: "SELECT name FROM pgmigrations ORDER BY id",
  up,
  down: () => run("down"),
});
