// kinto-http (npm, unmodified) through its whole public interface.
//   node http.cjs URL USER:PASSWORD BUCKET
// Prints one line of JSON: {"methods": number of them that were called}.
"use strict";

const assert = require("node:assert/strict");
const KintoHttp = require("kinto-http");
const Client = KintoHttp.default || KintoHttp;

const [url, auth, name] = process.argv.slice(2);
const headers = { Authorization: "Basic " + Buffer.from(auth).toString("base64") };

// Attachments belong to servers with kinto-attachment; execute, paginatedOperation and
// setHeaders have no result of their own and are used by all others.
const FOREIGN = new Set(["constructor", "addAttachment", "removeAttachment"]);
const called = new Set();
const public_ = new Set();

// Every method of the three classes notes that it was called, and does what it does.
function watch(object) {
  const prototype = Object.getPrototypeOf(object);
  for (let p = prototype; p !== Object.prototype; p = Object.getPrototypeOf(p)) {
    for (const [method, { value }] of Object.entries(Object.getOwnPropertyDescriptors(p))) {
      if (typeof value !== "function" || method.startsWith("_") || FOREIGN.has(method) || value.watched) continue;
      const key = `${object.constructor.name}.${method}`;
      public_.add(key);
      p[method] = function (...args) {
        called.add(key);
        return value.apply(this, args);
      };
      p[method].watched = true;
    }
  }
}

async function refused(status, promise) {
  await assert.rejects(promise, (error) => error.response.status === status);
}

async function server(client) {
  assert.equal((await client.fetchServerInfo()).project_name, "clients");
  assert.ok((await client.fetchServerSettings()).batch_max_requests > 0);
  assert.ok((await client.fetchServerCapabilities()).history);
  assert.match((await client.fetchUser()).id, /^basicauth:/);
  assert.match(await client.fetchHTTPApiVersion(), /^1\./);
  client.setHeaders({ "X-Own": "1" });
  assert.equal((await client.createAccount("js-user", "s3cr3t")).data.id, "js-user");
}

async function buckets(client) {
  const made = await client.createBucket(name, { data: { a: 1 }, permissions: { read: ["system.Everyone"] } });
  assert.equal(made.data.a, 1);
  await refused(412, client.createBucket(name, { safe: true }));
  await client.createBucket(name + "-2");
  assert.deepEqual((await client.listBuckets({ filters: { a: 1 } })).data.map((b) => b.id), [name]);
  await client.deleteBucket(name + "-2");
  assert.ok((await client.listPermissions()).data.some((entry) => entry.uri === `/buckets/${name}`));

  const bucket = client.bucket(name);
  watch(bucket);
  assert.equal((await bucket.getData()).a, 1);
  assert.equal((await bucket.setData({ b: 2 }, { patch: true })).data.a, 1);
  const { data: replaced } = await bucket.setData({ c: 3 });
  assert.equal(replaced.a, undefined);
  await refused(412, bucket.setData({ d: 4 }, { safe: true, last_modified: replaced.last_modified - 1 }));
  await bucket.setPermissions({ read: ["account:x"] });
  await bucket.addPermissions({ read: ["account:y"], write: ["account:y"] });
  assert.deepEqual((await bucket.getPermissions()).read.sort(), ["account:x", "account:y"]);
  await bucket.removePermissions({ read: ["account:x"] });
  assert.deepEqual((await bucket.getPermissions()).read, ["account:y"]);
  return bucket;
}

async function groups(bucket) {
  const { data: team } = await bucket.createGroup("team", ["account:x"], { data: { note: "n" } });
  assert.deepEqual(team.members, ["account:x"]);
  const { data: changed } = await bucket.updateGroup({ ...team, members: ["account:y"] }, { safe: true });
  assert.deepEqual((await bucket.getGroup("team")).data, changed);
  assert.equal((await bucket.listGroups()).data.length, 1);
  assert.equal(await bucket.getGroupsTimestamp(), `"${changed.last_modified}"`);
  await bucket.deleteGroup("team");
  await bucket.createGroup("other");
  assert.equal((await bucket.deleteGroups()).data.length, 1);
}

async function collections(bucket) {
  await bucket.createCollection("gone");
  await bucket.deleteCollection("gone");
  await bucket.createCollection("gone");
  assert.equal((await bucket.deleteCollections()).data.length, 1);
  const { data } = await bucket.createCollection("notes", { data: { sort: "title" } });
  assert.deepEqual((await bucket.listCollections()).data, [data]);
  assert.equal(await bucket.getCollectionsTimestamp(), `"${data.last_modified}"`);
  const notes = bucket.collection("notes");
  watch(notes);
  assert.equal((await notes.setData({ n: 1 }, { patch: true })).data.sort, "title");
  assert.equal((await notes.getData()).n, 1);
  await notes.setPermissions({ read: ["account:x"] });
  await notes.addPermissions({ write: ["account:y"] });
  await notes.removePermissions({ read: ["account:x"] });
  assert.ok((await notes.getPermissions()).write.includes("account:y"));
  return notes;
}

async function records(client, notes) {
  const { data: one } = await notes.createRecord({ id: "one", title: "é 𝄞", n: 1 });
  assert.equal(await notes.getRecordsTimestamp(), `"${one.last_modified}"`);
  const answers = await notes.batch((batch) => {
    for (let n = 2; n <= 60; n++) batch.createRecord({ id: `r${n}`, n }); // more than one request may have
  });
  assert.ok(answers.length === 59 && answers.every(({ status }) => status === 201));
  assert.equal(await notes.getTotalRecords(), 60);
  const { data: changed } = await notes.updateRecord({ ...one, n: 10 }, { safe: true });
  await refused(412, notes.updateRecord({ ...one, n: 11 }, { safe: true }));
  assert.equal((await notes.updateRecord({ id: "one", m: 1 }, { patch: true })).data.title, "é 𝄞");
  assert.equal((await notes.getRecord("one")).data.n, 10);
  let page = await notes.listRecords({ sort: "n", limit: 25, filters: { min_n: 2 } });
  const seen = [...page.data];
  while (page.hasNextPage) {
    page = await page.next();
    seen.push(...page.data);
  }
  assert.equal(seen.length, 60);
  assert.equal((await notes.listRecords({ pages: Infinity, limit: 7 })).data.length, 60);
  const { data: snapshot } = await notes.getSnapshot(changed.last_modified);
  assert.equal(snapshot.find((record) => record.id === "one").m, undefined);
  assert.equal(typeof (await notes.isHistoryComplete()), "boolean");
  await notes.deleteRecord("one");
  const since = `"${changed.last_modified}"`;
  assert.ok((await notes.listRecords({ since })).data.some((record) => record.id === "one" && record.deleted));
  assert.equal((await notes.deleteRecords({ filters: { max_n: 30 } })).data.length, 29);
}

async function main() {
  const client = new Client(url, { headers, retry: 2 });
  watch(client);
  await server(client);
  const bucket = await buckets(client);
  await groups(bucket);
  const notes = await collections(bucket);
  await records(client, notes);
  assert.ok((await bucket.listHistory({ filters: { resource_name: "record" } })).data.length > 60);
  const done = await client.batch((batch) => batch.bucket(name).collection("notes").createRecord({ n: 0 }), { aggregate: true });
  assert.equal(done.published.length, 1);
  await bucket.batch((batch) => batch.createGroup("last"));
  await client.execute({ path: `/buckets/${name}`, headers });
  await client.paginatedDelete(`/buckets/${name}/groups`, {}, { headers });
  await client.deleteBuckets({ filters: { id: name }, headers });
  const missing = [...public_].filter((key) => !called.has(key));
  assert.deepEqual(missing, [], "never called");
  console.log(JSON.stringify({ methods: called.size }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
