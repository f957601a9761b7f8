// Offline-first clients: the npm package kinto, unmodified, with IndexedDB from
// fake-indexeddb. Reads commands from standard input, one JSON object a line, and
// answers each with one line: {"ok": true, …} or {"ok": false, "error": …}.
// NODE_PATH names the folder of the packages.
//
//   {"do": "notes", "remotes": [three URLs]}   edits, syncs and conflicts of two clients
//   {"do": "begin", "remotes": […]}            begins to write a journal, and to sync it as it grows
//   {"do": "end"}                              ends it once all is synced
//   {"do": "follow", "remotes": […]}           begins to pull the cities, again and again
//   {"do": "pull", "remote": URL}              ends that, pulls once more, and tells what is there
"use strict";

require("fake-indexeddb/auto");
const crypto = require("node:crypto");
const readline = require("node:readline");
const { isDeepStrictEqual } = require("node:util");
const Kinto = require("kinto").default;

const { MANUAL, CLIENT_WINS, SERVER_WINS, PULL_ONLY } = Kinto.syncStrategy;
const [bucket, auth] = process.argv.slice(2);
const headers = { Authorization: "Basic " + Buffer.from(auth).toString("base64") };
// Between two notes of the journal.
const JOURNAL_PAUSE_MS = 100;
// Between two pulls of a device that follows.
const FOLLOW_PAUSE_MS = 500;
// A sync that gets no answer at all is one of a client without network.
const SYNC_TIMEOUT_MS = 30_000;
// After "end" the journal must be synced within this time.
const JOURNAL_END_MS = 90_000;

// Requests that left this program: offline work must not make any.
let requests = 0;
const send = globalThis.fetch;
globalThis.fetch = (...args) => {
  requests++;
  return send(...args);
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A client with a database of its own, as on a device of its own.
function device(name, collection, remote) {
  const kinto = new Kinto({ remote, bucket, headers, timeout: SYNC_TIMEOUT_MS, adapterOptions: { dbName: name } });
  return kinto.collection(collection);
}

function content(list) {
  return list.map(({ _status, ...record }) => record).sort((a, b) => (a.id < b.id ? -1 : 1));
}

// Notes holds what the two devices prove, and the changes that the server acknowledged.
class Notes {
  constructor(remotes) {
    this.remotes = remotes;
    this.a = device("device-a", "notes", remotes[0]);
    this.b = device("device-b", "notes", remotes[1]);
    this.proofs = [];
    this.acknowledged = [];
    this.syncMs = [];
  }

  prove(what, ok, detail) {
    this.proofs.push({ what, ok: Boolean(ok), detail });
  }

  async sync(on, node, strategy = MANUAL) {
    const begun = performance.now();
    const result = await on.sync({ remote: this.remotes[node - 1], strategy });
    this.syncMs.push(performance.now() - begun);
    if (result.errors.length) throw new Error("sync: " + JSON.stringify(result.errors));
    for (const r of result.published) {
      this.acknowledged.push({ uri: `/buckets/${bucket}/collections/notes/records/${r.id}`, last_modified: r.last_modified });
    }
    return result;
  }

  async equal() {
    const [a, b] = [content((await this.a.list()).data), content((await this.b.list()).data)];
    return { ok: isDeepStrictEqual(a, b), count: a.length };
  }

  // Creates, edits and deletes without network; through node 1 to node 2.
  async offline() {
    const before = requests;
    const ids = [];
    for (let i = 1; i <= 6; i++) {
      ids.push((await this.a.create({ title: `note ${i}`, text: "žluťoučký kůň ☃ 𝄞", rank: i / 4 })).data.id);
    }
    for (const id of ids.slice(0, 2)) await this.a.update({ id, title: "edited offline" }, { patch: true });
    await this.a.delete(ids[5]);
    const offline = requests - before;
    const pushed = await this.sync(this.a, 1);
    this.prove("created, edited and deleted offline, synced through node 1",
      offline === 0 && pushed.ok && pushed.published.length === 5,
      `${offline} requests while offline, ${pushed.published.length} notes published`);
    const pulled = await this.sync(this.b, 2);
    const same = await this.equal();
    this.prove("another device sees the notes through node 2", pulled.created.length === 5 && same.ok && same.count === 5,
      `${pulled.created.length} received, equal to the first device's`);
    return ids;
  }

  // Both devices edit note id; the second one to sync gets a conflict through node 3.
  async collide(id, strategy) {
    await this.a.update({ id, title: "first", by: "a" }, { patch: true });
    await this.b.update({ id, title: "second", by: "b" }, { patch: true });
    await this.sync(this.a, 1);
    return this.sync(this.b, 3, strategy);
  }

  async manual(id) {
    const conflicted = await this.collide(id, MANUAL);
    const [conflict] = conflicted.conflicts;
    const found = conflicted.conflicts.length === 1 && !conflicted.ok && conflict.local.by === "b" && conflict.remote.by === "a";
    await this.b.resolve(conflict, { ...conflict.remote, title: "first and second", by: "a b" });
    const resolved = await this.sync(this.b, 3);
    await this.sync(this.a, 1);
    const same = await this.equal();
    const note = (await this.a.get(id)).data;
    this.prove("a conflict through node 3 is reported, resolved by hand, and both devices agree",
      found && resolved.ok && same.ok && note.by === "a b", `1 conflict, result "${note.title}"`);
  }

  async automatic(id, strategy, winner) {
    const synced = await this.collide(id, strategy);
    await this.sync(this.a, 2);
    const same = await this.equal();
    const note = (await this.a.get(id)).data;
    this.prove(`a conflict through node 3 is resolved by ${strategy}`,
      synced.ok && synced.resolved.length === 1 && same.ok && note.by === winner, `both devices have the note of ${note.by}`);
  }

  async removal(id) {
    await this.b.delete(id);
    const pushed = await this.sync(this.b, 2);
    const pulled = await this.sync(this.a, 3);
    const same = await this.equal();
    this.prove("a note deleted on one device goes from the other", pushed.ok && pulled.deleted.length === 1 && same.ok && same.count === 4,
      `${same.count} notes left on both`);
  }

  async run() {
    const ids = await this.offline();
    await this.manual(ids[0]);
    await this.automatic(ids[1], CLIENT_WINS, "b");
    await this.automatic(ids[2], SERVER_WINS, "a");
    await this.removal(ids[3]);
    const records = content((await this.a.list()).data);
    return { proofs: this.proofs, acknowledged: this.acknowledged, syncs: this.syncMs.length, syncMs: Math.max(...this.syncMs), records };
  }
}

// Journal keeps writing offline and syncs when it can: a node that is down is a
// network that is down, and the next node is asked next time.
class Journal {
  constructor(remotes) {
    this.remotes = remotes;
    this.notes = device("journal", "journal", remotes[0]);
    this.written = [];
    this.syncs = 0;
    this.failed = 0;
    this.ended = false;
    this.running = Promise.all([this.write(), this.follow()]);
  }

  // Writing never waits for the network.
  async write() {
    for (let i = 0; !this.ended; i++) {
      this.written.push((await this.notes.create({ entry: i })).data.id);
      await sleep(JOURNAL_PAUSE_MS);
    }
  }

  async follow() {
    for (let i = 0; !this.ended; i++) {
      await this.sync(i);
      await sleep(JOURNAL_PAUSE_MS);
    }
  }

  async sync(turn) {
    try {
      const result = await this.notes.sync({ remote: this.remotes[turn % this.remotes.length], strategy: MANUAL });
      if (result.conflicts.length) throw new Error("conflict: " + JSON.stringify(result.conflicts));
      this.syncs++;
      return result.ok;
    } catch (error) {
      this.failed++;
      this.lastError = error.message;
      return false;
    }
  }

  async end() {
    this.ended = true;
    await this.running;
    const deadline = Date.now() + JOURNAL_END_MS;
    for (let turn = 0; ; turn++) {
      const synced = await this.sync(turn);
      const { data } = await this.notes.list();
      if (synced && data.every((note) => note._status === "synced")) break;
      if (Date.now() > deadline) throw new Error("the journal is not synced: " + this.lastError);
      await sleep(JOURNAL_PAUSE_MS);
    }
    return { ids: this.written, syncs: this.syncs, failed: this.failed, lastError: this.lastError };
  }
}

// Follower pulls the cities while they are loaded: only what changed since its last
// sync, from whichever node answers. (Its database takes many small syncs far better
// than a single one of 100,000 records.)
class Follower {
  constructor(remotes) {
    this.cities = device("cities", "cities", remotes[0]);
    this.running = Promise.resolve();
    this.begin();
  }

  begin() {
    Object.assign(this, { syncs: 0, failed: 0, created: 0, updated: 0 });
  }

  follow(remotes) {
    this.following = true;
    this.running = (async () => {
      for (let i = 0; this.following; i++) {
        await this.sync(remotes[i % remotes.length]).catch((error) => {
          this.failed++;
          this.lastError = error.message;
        });
        await sleep(FOLLOW_PAUSE_MS);
      }
    })();
  }

  async sync(remote) {
    const result = await this.cities.sync({ remote, strategy: PULL_ONLY });
    if (!result.ok) throw new Error("sync: " + JSON.stringify([result.errors, result.conflicts]));
    this.syncs++;
    this.created += result.created.length;
    this.updated += result.updated.length;
  }

  async pull(remote) {
    this.following = false;
    await this.running;
    const begun = performance.now();
    await this.sync(remote);
    const seconds = (performance.now() - begun) / 1000;
    const { data } = await this.cities.list({ order: "" });
    const digest = crypto.createHash("sha256");
    for (const r of content(data)) digest.update(`${r.id} ${r.last_modified} ${r.population} ${r.name}\n`);
    const { syncs, failed, created, updated, lastError } = this;
    this.begin();
    return { seconds, syncs, failed, created, updated, lastError, count: data.length, digest: digest.digest("hex") };
  }
}

let follower;
let journal;

const commands = {
  notes: ({ remotes }) => new Notes(remotes).run(),
  begin: async ({ remotes }) => {
    journal = new Journal(remotes);
    return {};
  },
  end: () => journal.end(),
  follow: async ({ remotes }) => {
    follower = new Follower(remotes);
    follower.follow(remotes);
    return {};
  },
  pull: ({ remote }) => follower.pull(remote),
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    let answer;
    try {
      answer = { ok: true, ...(await commands[command.do](command)) };
    } catch (error) {
      answer = { ok: false, error: error.stack || String(error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
}

main();
