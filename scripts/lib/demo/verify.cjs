// The npm package standardwebhooks, unmodified, as a second judge of signatures.
//
//   node verify.cjs SECRET
//
// Reads deliveries from standard input, one a line: {"headers": {…}, "body": BASE64}, and
// answers each with one line: "ok", or why it is refused. NODE_PATH names the folder of
// the packages.
"use strict";

const readline = require("node:readline");
const { Webhook } = require("standardwebhooks");

const webhook = new Webhook(process.argv[2]);

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  let answer = "ok";
  try {
    const { headers, body } = JSON.parse(line);
    const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
    webhook.verify(Buffer.from(body, "base64"), lower);
  } catch (error) {
    answer = `${error.name}: ${error.message}`.replace(/\s+/g, " ");
  }
  process.stdout.write(answer + "\n");
});
