// Knex. Its default is one transaction over all migrations of a batch, and a row in a table as its lock.
import { mkdirSync, writeFileSync } from "node:fs";
import knex from "knex";
import { CONNECTION, serve } from "./serve.mjs";

const table = (change, name = "orders") => `db.schema.alterTable("${name}", (table) => { ${change} })`;
const MIGRATIONS = {
  nullable_column: [table('table.text("comment")'), table('table.dropColumn("comment")')],
  constant_default: [table('table.integer("priority").notNullable().defaultTo(0)'), table('table.dropColumn("priority")')],
  volatile_default: [
    table('table.uuid("token").notNullable().defaultTo(db.raw("gen_random_uuid()"))', "baskets"),
    table('table.dropColumn("token")', "baskets"),
  ],
  index: [table('table.index(["email"], "orders_email")'), table('table.dropIndex([], "orders_email")')],
  unique: [table('table.unique(["number"], { indexName: "orders_number" })'), table('table.dropUnique([], "orders_number")')],
  foreign_key: [
    table('table.foreign("shop_id", "orders_shop").references("shops.id")'),
    table('table.dropForeign([], "orders_shop")'),
  ],
  not_null: [table('table.dropNullable("email")'), table('table.setNullable("email")')],
  check: [table('table.check("amount >= 0", [], "orders_amount")'), table('table.dropChecks(["orders_amount"])')],
  rename_column: [table('table.renameColumn("note", "remark")'), table('table.renameColumn("remark", "note")')],
  drop_column: [table('table.dropColumn("old_note")'), table('table.text("old_note")')],
  column_index_key: [
    table(`
      table.bigInteger("region_id").references("regions.id");
      table.index(["region_id", "email"], "orders_region");`),
    table('table.dropColumn("region_id")'),
  ],
  table_and_orders: [
    `db.schema.createTable("refunds", (table) => {
      table.bigIncrements("id");
      table.bigInteger("order_id").notNullable().references("orders.id").index();
    }).alterTable("orders", (table) => {
      table.decimal("refunded", 12, 2);
      table.check("refunded >= 0", [], "orders_refunded");
      table.index(["email", "created_at"], "orders_created");
    })`,
    `db.schema.alterTable("orders", (table) => {
      table.dropIndex([], "orders_created");
      table.dropColumn("refunded");
    }).dropTable("refunds")`,
  ],
  column_and_index: [
    table(`
      table.uuid("tracking").notNullable().defaultTo(db.raw("gen_random_uuid()"));
      table.index(["tracking"], "baskets_tracking");`, "baskets"),
    table('table.dropColumn("tracking")', "baskets"),
  ],
  enum: [
    table('table.enu("kind", ["web", "phone"], { useNative: true, enumName: "order_kind" }).notNullable().defaultTo("web")'),
    `${table('table.dropColumn("kind")')}.raw("DROP TYPE order_kind")`,
  ],
  filled_column: [
    `${table('table.text("label").defaultTo("")', "baskets")}
      .raw("UPDATE baskets SET label = 'basket ' || id")
      .alterTable("baskets", (table) => { table.dropNullable("label") })`,
    table('table.dropColumn("label")', "baskets"),
  ],
  type: [
    table('table.bigInteger("pieces").notNullable().defaultTo(1).alter()', "baskets"),
    table('table.integer("pieces").notNullable().defaultTo(1).alter()', "baskets"),
  ],
};

mkdirSync("migrations");
const migrations = { directory: "./migrations", loadExtensions: [".cjs"] };

// A process of its own for each command, as far as the server can see.
async function connected(act) {
  const db = knex({ client: "pg", connection: CONNECTION, migrations });
  try {
    await act(db);
  } finally {
    await db.destroy();
  }
}

async function up(count) {
  Object.entries(MIGRATIONS).slice(0, count).forEach(([step, [forth, back]], index) => {
    const text = `exports.up = (db) => ${forth};\nexports.down = (db) => ${back};\n`;
    writeFileSync(`migrations/${String(index + 1).padStart(4, "0")}_${step}.cjs`, text);
  });
  await connected((db) => db.migrate.latest());
}

await serve({
  steps: Object.keys(MIGRATIONS),
  history: "SELECT name, batch FROM knex_migrations ORDER BY id",
  up,
  down: () => connected((db) => db.migrate.rollback(undefined, true)),
});
