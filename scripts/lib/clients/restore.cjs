// What kinto.js (npm, unmodified) sees when a service is restored from a backup.
//   node restore.cjs QUINTO FOLDER
// Prints a line for each thing that it found, and exits with 1 if one is not so.
"use strict";

require("fake-indexeddb/auto");
const assert = require("node:assert/strict");
const { execFileSync, spawn } = require("node:child_process");
const { copyFileSync, mkdirSync } = require("node:fs");
const { createServer } = require("node:net");
const path = require("node:path");
const Kinto = require("kinto").default;

const [quinto, folder] = process.argv.slice(2);
let port, url; // set by main
const headers = { Authorization: "Basic " + Buffer.from("alice:secret").toString("base64") };
const at = (name) => path.join(folder, name);
const command = (...args) => execFileSync(quinto, args, { stdio: ["ignore", "ignore", "inherit"] });

// freePort is below the ports of outgoing connections: it stays free between servers.
async function freePort() {
  for (let i = 0; i < 100; i++) {
    const port = 10000 + Math.floor(Math.random() * 20000);
    const server = createServer();
    const ok = await new Promise((done) => server.once("error", () => done(false)).listen(port, "127.0.0.1", () => done(true)));
    if (!ok) continue;
    await new Promise((done) => server.close(done));
    return String(port);
  }
  throw new Error("no free port");
}

async function start(data) {
  const child = spawn(quinto, ["start", "--quiet", "--data", at(data), "--port", port], { stdio: ["ignore", "ignore", "inherit"] });
  for (let i = 0; i < 600; i++) {
    const ok = await fetch(`${url}/__heartbeat__`).then((r) => r.ok, () => false);
    if (ok) return child;
    await new Promise((done) => setTimeout(done, 100));
  }
  child.kill();
  throw new Error("the server does not answer");
}

function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  return new Promise((done) => child.once("exit", done) && child.kill());
}

function device(name) {
  return new Kinto({ remote: url, bucket: "notebook", headers, adapterOptions: { dbName: name } }).collection("notes");
}

async function onServer() {
  const answer = await fetch(`${url}/buckets/notebook/collections/notes/records`, { headers });
  return (await answer.json()).data.map((r) => r.title).sort().join();
}

// restored makes a new cluster of the archive in the place of the old one.
async function restored(child, data, ...flags) {
  await stop(child);
  mkdirSync(at(data));
  copyFileSync(at("old/quinto.ini"), path.join(at(data), "quinto.ini"));
  command("restore", "--from", at("x.backup"), "--data", at(data), ...flags);
  return start(data);
}

async function main() {
  port = await freePort();
  url = `http://127.0.0.1:${port}/v1`;
  let child = await start("old");
  try {
    for (const p of ["/buckets/notebook", "/buckets/notebook/collections/notes"]) {
      assert.ok((await fetch(url + p, { method: "PUT", headers })).ok);
    }
    const notes = device("phone");
    for (const title of ["a", "b"]) await notes.create({ title });
    assert.ok((await notes.sync()).ok);
    command("backup", "--data", at("old"), "--to", at("x.backup"));

    child = await restored(child, "same", "--last-state");
    const quiet = await notes.sync();
    assert.ok(quiet.ok && quiet.created.length === 0 && quiet.updated.length === 0);
    console.log("restored as the last state: kinto.js notices nothing");

    await notes.create({ title: "c" }); // written after the backup, and lost on the server
    assert.ok((await notes.sync()).ok);
    child = await restored(child, "new", "--revisions-above", String(2 ** 40));
    assert.equal(await onServer(), "a,b");
    await assert.rejects(notes.sync(), (error) => error.name === "ServerWasFlushedError" || /flushed/.test(error.message));
    console.log("restored from an older state: sync() ends with ServerWasFlushedError");
    await notes.resetSyncStatus();
    const again = await notes.sync();
    assert.ok(again.ok, JSON.stringify(again.errors));
    assert.equal(await onServer(), "a,b,c");
    console.log("after resetSyncStatus() and sync() the server has what the device had: a, b, c");

    const fresh = device("tablet");
    await fresh.sync();
    assert.equal((await fresh.list()).data.map((r) => r.title).sort().join(), "a,b,c");
    console.log("another device gets a, b, c");
  } finally {
    await stop(child);
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
