// Sequelize with umzug. No transaction of its own by default; several of its calls are strings of several statements.
import { Sequelize, DataTypes } from "sequelize";
import { SequelizeStorage, Umzug } from "umzug";
import { URL_, serve } from "./serve.mjs";

const add = (table, column, options) => (query) => query.addColumn(table, column, options);
const drop = (table, column) => (query) => query.removeColumn(table, column);
const constrain = (options) => (query) => query.addConstraint("orders", options);
const release = (name) => (query) => query.removeConstraint("orders", name);
const MIGRATIONS = {
  nullable_column: [add("orders", "comment", { type: DataTypes.TEXT }), drop("orders", "comment")],
  constant_default: [
    add("orders", "priority", { type: DataTypes.INTEGER, allowNull: false, defaultValue: 0 }),
    drop("orders", "priority"),
  ],
  volatile_default: [
    add("baskets", "token", { type: DataTypes.UUID, allowNull: false, defaultValue: Sequelize.fn("gen_random_uuid") }),
    drop("baskets", "token"),
  ],
  index: [
    (query) => query.addIndex("orders", ["email"], { name: "orders_email" }),
    (query) => query.removeIndex("orders", "orders_email"),
  ],
  unique: [constrain({ type: "unique", name: "orders_number", fields: ["number"] }), release("orders_number")],
  foreign_key: [
    constrain({ type: "foreign key", name: "orders_shop", fields: ["shop_id"], references: { table: "shops", field: "id" } }),
    release("orders_shop"),
  ],
  not_null: [
    (query) => query.changeColumn("orders", "email", { type: 'VARCHAR(60) COLLATE "und-x-icu"', allowNull: false }),
    (query) => query.changeColumn("orders", "email", { type: 'VARCHAR(60) COLLATE "und-x-icu"', allowNull: true }),
  ],
  check: [
    constrain({ type: "check", name: "orders_amount", fields: ["amount"], where: { amount: { [Sequelize.Op.gte]: 0 } } }),
    release("orders_amount"),
  ],
  rename_column: [
    (query) => query.renameColumn("orders", "note", "remark"),
    (query) => query.renameColumn("orders", "remark", "note"),
  ],
  drop_column: [drop("orders", "old_note"), add("orders", "old_note", { type: DataTypes.TEXT })],
  column_index_key: [
    async (query) => {
      await query.addColumn("orders", "region_id", { type: DataTypes.BIGINT, references: { model: "regions", key: "id" } });
      await query.addIndex("orders", ["region_id", "email"], { name: "orders_region" });
    },
    drop("orders", "region_id"),
  ],
  table_and_orders: [
    async (query) => {
      await query.createTable("refunds", {
        id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
        order_id: { type: DataTypes.BIGINT, allowNull: false, references: { model: "orders", key: "id" } },
      });
      await query.addIndex("refunds", ["order_id"]);
      await query.addColumn("orders", "refunded", { type: DataTypes.DECIMAL(12, 2) });
      await query.addConstraint("orders", {
        type: "check", name: "orders_refunded", fields: ["refunded"], where: { refunded: { [Sequelize.Op.gte]: 0 } },
      });
      await query.addIndex("orders", ["email", "created_at"], { name: "orders_created" });
    },
    async (query) => {
      await query.removeIndex("orders", "orders_created");
      await query.removeColumn("orders", "refunded");
      await query.dropTable("refunds");
    },
  ],
  column_and_index: [
    async (query) => {
      const tracking = { type: DataTypes.UUID, allowNull: false, defaultValue: Sequelize.fn("gen_random_uuid") };
      await query.addColumn("baskets", "tracking", tracking);
      await query.addIndex("baskets", ["tracking"], { name: "baskets_tracking" });
    },
    drop("baskets", "tracking"),
  ],
  enum: [
    add("orders", "kind", { type: DataTypes.ENUM("web", "phone"), allowNull: false, defaultValue: "web" }),
    async (query) => {
      await query.removeColumn("orders", "kind");
      await query.sequelize.query("DROP TYPE enum_orders_kind");
    },
  ],
  filled_column: [
    async (query) => {
      await query.addColumn("baskets", "label", { type: DataTypes.TEXT, defaultValue: "" });
      await query.sequelize.query("UPDATE baskets SET label = 'basket ' || id");
      await query.changeColumn("baskets", "label", { type: DataTypes.TEXT, defaultValue: "", allowNull: false });
    },
    drop("baskets", "label"),
  ],
  type: [
    (query) => query.changeColumn("baskets", "pieces", { type: DataTypes.BIGINT, allowNull: false, defaultValue: 1 }),
    (query) => query.changeColumn("baskets", "pieces", { type: DataTypes.INTEGER, allowNull: false, defaultValue: 1 }),
  ],
};

async function migrate(count, act) {
  const sequelize = new Sequelize(URL_, { dialect: "postgres", logging: false });
  const migrations = Object.entries(MIGRATIONS).slice(0, count).map(([name, [forth, back]], index) => ({
    name: `${String(index + 1).padStart(4, "0")}_${name}`,
    up: ({ context }) => forth(context),
    down: ({ context }) => back(context),
  }));
  const umzug = new Umzug({
    migrations,
    context: sequelize.getQueryInterface(),
    storage: new SequelizeStorage({ sequelize }),
    logger: undefined,
  });
  try {
    await act(umzug);
  } finally {
    await sequelize.close();
  }
}

const steps = Object.keys(MIGRATIONS);
await serve({
  steps,
  history: 'SELECT name FROM "SequelizeMeta" ORDER BY name',
  up: (count) => migrate(count, (umzug) => umzug.up()),
  down: () => migrate(steps.length, (umzug) => umzug.down({ to: 0 })),
});
