// oidc-provider (npm, unmodified): an OpenID provider on loopback with one client, whose
// users may call themselves what they like.
//   node provider.mjs PORT REDIRECT_URI...
// NODE_PATH is the folder of the packages. Prints "ready"; a line "rotate" on its input
// makes it sign with a new key from then on and forget the old one ("rotated").
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { default: Provider } = await import(pathToFileURL(join(process.env.NODE_PATH, "oidc-provider/lib/index.js")));
const [port, ...redirectURIs] = process.argv.slice(2);
let keys = 0;

function provider() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      {
        client_id: "quinto",
        client_secret: "a secret of the client",
        token_endpoint_auth_method: "client_secret_post",
        redirect_uris: redirectURIs,
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"] },
    conformIdTokenClaims: false, // the ID token tells the e-mail address too
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.org`, email_verified: true }) }),
    pkce: { required: () => false },
    cookies: { keys: ["a key of this run"] },
    jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: `key-${++keys}`, alg: "RS256", use: "sig" }] },
  }).callback();
}

let current = provider();
createServer((request, answer) => current(request, answer)).listen(Number(port), "127.0.0.1", () => console.log("ready"));
createInterface({ input: process.stdin })
  .on("line", () => {
    current = provider(); // its sessions and tokens are kept beside it
    console.log("rotated");
  })
  .on("close", () => process.exit(0)); // whoever started this is gone
