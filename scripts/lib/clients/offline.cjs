// kinto (npm, unmodified), the offline-first client, through the whole public interface
// of its collections; IndexedDB is that of fake-indexeddb.
//   node offline.cjs URL USER:PASSWORD BUCKET
// The bucket has the collections "notes" and "dump". Prints one line of JSON:
// {"methods": number of them that were called}.
"use strict";

require("fake-indexeddb/auto");
const assert = require("node:assert/strict");
const Kinto = require("kinto").default;

const [url, auth, bucket] = process.argv.slice(2);
const headers = { Authorization: "Basic " + Buffer.from(auth).toString("base64") };
const { CLIENT_WINS, SERVER_WINS, MANUAL, PULL_ONLY } = Kinto.syncStrategy;

function device(name, collection, options) {
  const kinto = new Kinto({ remote: url, bucket, headers, adapterOptions: { dbName: name } });
  return kinto.collection(collection, options);
}

const called = new Set();
const methods = new Set();

function watch(prototype) {
  for (const [method, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
    if (typeof value !== "function" || method.startsWith("_") || method === "constructor") continue;
    methods.add(method);
    prototype[method] = function (...args) {
      called.add(method);
      return value.apply(this, args);
    };
  }
}

async function local(notes) {
  const { data: a } = await notes.create({ title: "a" });
  const { data: b } = await notes.create({ id: "5a3c2a36-8b4f-4a3e-9d7a-3a1d7c1f0001", title: "b" }, { useRecordId: true });
  await notes.update({ ...a, title: "a2" });
  await notes.update({ id: a.id, more: 1 }, { patch: true });
  await notes.upsert({ ...b, title: "b2" });
  assert.equal((await notes.get(a.id)).data.more, 1);
  assert.equal((await notes.getAny("5a3c2a36-8b4f-4a3e-9d7a-3a1d7c1fffff")).data, undefined);
  await notes.execute((store) => store.update({ ...b, title: "b3" }), { preloadIds: [b.id] });
  assert.equal((await notes.gatherLocalChanges()).length, 2);
  assert.deepEqual(notes.cleanLocalFields({ id: "x", _status: "created" }), { id: "x" });
  return [a, b];
}

async function syncs(a, b) {
  const [first] = await local(a);
  const pushed = await a.sync();
  assert.ok(pushed.ok && pushed.published.length === 2, JSON.stringify(pushed));
  const pulled = await b.sync({ strategy: PULL_ONLY });
  assert.equal(pulled.created.length, 2);
  assert.equal(b.lastModified, a.lastModified);

  const conflict = async (strategy) => {
    await a.update({ id: first.id, title: "of a " + strategy }, { patch: true });
    await a.sync();
    await b.update({ id: first.id, title: "of b " + strategy }, { patch: true });
    return b.sync({ strategy });
  };
  assert.equal((await conflict(SERVER_WINS)).resolved.length, 1);
  assert.equal((await b.get(first.id)).data.title, "of a " + SERVER_WINS);
  assert.equal((await conflict(CLIENT_WINS)).resolved.length, 1);
  await a.sync();
  assert.equal((await a.get(first.id)).data.title, "of b " + CLIENT_WINS);
  const manual = await conflict(MANUAL);
  assert.equal(manual.conflicts.length, 1);
  await b.resolve(manual.conflicts[0], { ...manual.conflicts[0].local, title: "both" });
  assert.ok((await b.sync()).ok);
  await a.sync();
  assert.equal((await a.get(first.id)).data.title, "both");

  await a.delete(first.id);
  await a.deleteAny("5a3c2a36-8b4f-4a3e-9d7a-3a1d7c1f0001");
  await a.sync();
  assert.equal((await b.sync()).deleted.length, 2);
  assert.deepEqual((await b.list()).data, []);
  await a.create({ title: "c" });
  await a.deleteAll();
}

async function rest(notes) {
  await notes.create({ title: "again" });
  await notes.sync();
  assert.ok((await notes.metadata()).id === "notes" || (await notes.pullMetadata(notes.api.bucket(bucket).collection("notes"))));
  await notes.pullMetadata(notes.api.bucket(bucket).collection("notes"));
  assert.equal((await notes.metadata()).id, "notes");
  assert.ok((await notes.resetSyncStatus()) >= 1);
  await notes.clear();
  assert.equal((await notes.list()).data.length, 0);

  const dump = device("device-dump", "dump");
  await dump.loadDump([{ id: "5a3c2a36-8b4f-4a3e-9d7a-3a1d7c1f0002", last_modified: 1, title: "dumped" }]);
  await dump.importBulk([{ id: "5a3c2a36-8b4f-4a3e-9d7a-3a1d7c1f0003", last_modified: 2, title: "bulk" }]);
  assert.equal((await dump.list({ order: "title" })).data.length, 2);
}

async function main() {
  const transformer = { encode: (r) => ({ ...r, wire: true }), decode: (r) => r };
  const hooks = { "incoming-changes": [(payload) => payload] };
  const a = device("device-a", "notes", { remoteTransformers: [transformer] });
  const b = device("device-b", "notes", { hooks });
  watch(Object.getPrototypeOf(a));
  await syncs(a, b);
  await rest(a);
  const missing = [...methods].filter((method) => !called.has(method));
  assert.deepEqual(missing, [], "never called");
  console.log(JSON.stringify({ methods: called.size }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
