// Kysely. Its default is one transaction over all pending migrations, and an advisory lock that it waits for.
import { Kysely, Migrator, NO_MIGRATIONS, PostgresDialect, sql } from "kysely";
import pg from "pg";
import { CONNECTION, serve } from "./serve.mjs";

const alter = (change, table = "orders") => (db) => change(db.schema.alterTable(table)).execute();
const MIGRATIONS = {
  nullable_column: [alter((table) => table.addColumn("comment", "text")), alter((table) => table.dropColumn("comment"))],
  constant_default: [
    alter((table) => table.addColumn("priority", "integer", (column) => column.notNull().defaultTo(0))),
    alter((table) => table.dropColumn("priority")),
  ],
  volatile_default: [
    alter((table) => table.addColumn("token", "uuid", (column) => column.notNull().defaultTo(sql`gen_random_uuid()`)), "baskets"),
    alter((table) => table.dropColumn("token"), "baskets"),
  ],
  index: [
    (db) => db.schema.createIndex("orders_email").on("orders").column("email").execute(),
    (db) => db.schema.dropIndex("orders_email").execute(),
  ],
  unique: [
    alter((table) => table.addUniqueConstraint("orders_number", ["number"])),
    alter((table) => table.dropConstraint("orders_number")),
  ],
  foreign_key: [
    alter((table) => table.addForeignKeyConstraint("orders_shop", ["shop_id"], "shops", ["id"])),
    alter((table) => table.dropConstraint("orders_shop")),
  ],
  not_null: [
    alter((table) => table.alterColumn("email", (column) => column.setNotNull())),
    alter((table) => table.alterColumn("email", (column) => column.dropNotNull())),
  ],
  check: [
    alter((table) => table.addCheckConstraint("orders_amount", sql`amount >= 0`)),
    alter((table) => table.dropConstraint("orders_amount")),
  ],
  rename_column: [
    alter((table) => table.renameColumn("note", "remark")),
    alter((table) => table.renameColumn("remark", "note")),
  ],
  drop_column: [alter((table) => table.dropColumn("old_note")), alter((table) => table.addColumn("old_note", "text"))],
  column_index_key: [
    async (db) => {
      await alter((table) => table.addColumn("region_id", "bigint", (column) => column.references("regions.id")))(db);
      await db.schema.createIndex("orders_region").on("orders").columns(["region_id", "email"]).execute();
    },
    alter((table) => table.dropColumn("region_id")),
  ],
  table_and_orders: [
    async (db) => {
      await db.schema
        .createTable("refunds")
        .addColumn("id", "bigserial", (column) => column.primaryKey())
        .addColumn("order_id", "bigint", (column) => column.notNull().references("orders.id"))
        .execute();
      await db.schema.createIndex("refunds_order").on("refunds").column("order_id").execute();
      await alter((table) => table.addColumn("refunded", "numeric(12, 2)"))(db);
      await alter((table) => table.addCheckConstraint("orders_refunded", sql`refunded >= 0`))(db);
      await db.schema.createIndex("orders_created").on("orders").columns(["email", "created_at"]).execute();
    },
    async (db) => {
      await db.schema.dropIndex("orders_created").execute();
      await alter((table) => table.dropColumn("refunded"))(db);
      await db.schema.dropTable("refunds").execute();
    },
  ],
  column_and_index: [
    async (db) => {
      const uuid = (column) => column.notNull().defaultTo(sql`gen_random_uuid()`);
      await alter((table) => table.addColumn("tracking", "uuid", uuid), "baskets")(db);
      await db.schema.createIndex("baskets_tracking").on("baskets").column("tracking").execute();
    },
    alter((table) => table.dropColumn("tracking"), "baskets"),
  ],
  enum: [
    async (db) => {
      await db.schema.createType("order_kind").asEnum(["web", "phone"]).execute();
      await alter((table) => table.addColumn("kind", sql`order_kind`, (column) => column.notNull().defaultTo("web")))(db);
    },
    async (db) => {
      await alter((table) => table.dropColumn("kind"))(db);
      await db.schema.dropType("order_kind").execute();
    },
  ],
  filled_column: [
    async (db) => {
      await alter((table) => table.addColumn("label", "text", (column) => column.defaultTo("")), "baskets")(db);
      await sql`UPDATE baskets SET label = 'basket ' || id`.execute(db);
      await alter((table) => table.alterColumn("label", (column) => column.setNotNull()), "baskets")(db);
    },
    alter((table) => table.dropColumn("label"), "baskets"),
  ],
  type: [
    alter((table) => table.alterColumn("pieces", (column) => column.setDataType("bigint")), "baskets"),
    alter((table) => table.alterColumn("pieces", (column) => column.setDataType("integer")), "baskets"),
  ],
};

async function migrate(count, act) {
  const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool(CONNECTION) }) });
  const migrations = Object.entries(MIGRATIONS).slice(0, count).map(([step, [forth, back]], index) => [
    `${String(index + 1).padStart(4, "0")}_${step}`,
    { up: forth, down: back },
  ]);
  const provider = { getMigrations: async () => Object.fromEntries(migrations) };
  try {
    const { error } = await act(new Migrator({ db, provider }));
    if (error) throw error;
  } finally {
    await db.destroy();
  }
}

const steps = Object.keys(MIGRATIONS);
await serve({
  steps,
  history: "SELECT name FROM kysely_migration ORDER BY name",
  up: (count) => migrate(count, (migrator) => migrator.migrateToLatest()),
  down: () => migrate(steps.length, (migrator) => migrator.migrateTo(NO_MIGRATIONS)),
});
