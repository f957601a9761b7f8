"""A browser logs in at a real OpenID provider, through nodes of one cluster: see provider.mjs."""

import base64
import html
import json
import os
import re
import subprocess
import time
import urllib.parse

import requests

from python import must

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 30
CALLBACK = "http://127.0.0.1:9/#tokens="
POLICIES = ("idp", "local")


def settings(port):
    """Two policies at one provider: the first asks it whose a token is, the second verifies
    the signature of ID tokens itself."""
    lines = []
    for name in POLICIES:
        lines += [
            f"multiauth.policy.{name}.use = kinto.plugins.openid.OpenIDConnectPolicy",
            f"multiauth.policy.{name}.issuer = http://127.0.0.1:{port}",
            f"multiauth.policy.{name}.client_id = quinto",
            f"multiauth.policy.{name}.client_secret = a secret of the client",
        ]
    return lines + ["multiauth.policy.local.audience = quinto", "multiauth.policy.local.ask_userinfo = false"]


class Provider:
    def __init__(self, port, node_path, redirect_uris):
        command = ["node", os.path.join(HERE, "provider.mjs"), str(port), *redirect_uris]
        self.process = subprocess.Popen(command, env={**os.environ, "NODE_PATH": node_path}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.wait("ready")

    def wait(self, word):
        for line in self.process.stdout:  # notices of the package come between
            if line.strip() == word:
                return
        raise AssertionError(f"the provider ended before it said {word!r}")

    def rotate(self):
        self.process.stdin.write("rotate\n")
        self.process.stdin.flush()
        self.wait("rotated")

    def stop(self):
        self.process.kill()
        self.process.wait(SECONDS)


class Flow:
    """A browser. All nodes are one service to it, called host; it goes to the nodes in turn."""

    def __init__(self, host, nodes, user):
        self.host, self.nodes, self.user, self.turn = host, nodes, user, 0
        self.session = requests.Session()

    def node(self, path, token=None):
        self.turn += 1
        headers = {"Host": self.host, **({"Authorization": f"Bearer {token}"} if token else {})}
        return requests.get(self.nodes[self.turn % len(self.nodes)] + path, headers=headers, allow_redirects=False, timeout=SECONDS)

    def provider(self, url):
        """Follows the provider, filling in its forms, up to where it leads back to."""
        for _ in range(12):
            if urllib.parse.urlsplit(url).netloc == self.host:
                return url
            page = self.session.get(url, allow_redirects=False, timeout=SECONDS)
            if page.status_code == 200:
                action = html.unescape(re.search(r'<form[^>]* action="([^"]*)"', page.text).group(1))
                prompt = re.search(r'name="prompt" value="([^"]*)"', page.text).group(1)
                page = self.session.post(urllib.parse.urljoin(url, action), data={"prompt": prompt, "login": self.user, "password": "x"},
                                         allow_redirects=False, timeout=SECONDS)
            must(page.status_code in (302, 303), f"the provider answers {page.status_code} {page.text[:500]}")
            url = urllib.parse.urljoin(url, page.headers["Location"])
        raise AssertionError("the provider leads nowhere")

    def login(self, policy):
        """The tokens, and the path that gave them."""
        query = urllib.parse.urlencode({"callback": CALLBACK, "scope": "openid email"})
        begun = self.node(f"/openid/{policy}/login?{query}")
        must(begun.status_code == 307, f"login: {begun.status_code} {begun.text}")
        back = self.provider(begun.headers["Location"]).split("/v1", 1)[1]
        ended = self.node(back)  # the next node
        must(ended.status_code == 307 and ended.headers["Location"].startswith(CALLBACK), f"token: {ended.status_code} {ended.text}")
        text = urllib.parse.unquote(ended.headers["Location"][len(CALLBACK):])
        must(not text.startswith("error="), text)
        return json.loads(base64.b64decode(text)), back

    def users(self, token):
        """Who the token's owner is to each node."""
        return [self.node("/", token).json().get("user", {}) for _ in self.nodes]


def forge(token):
    """The same claims under "alg": "none", and under another key's name."""
    _, claims, signature = token.split(".")

    def head(fields):
        return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")

    return [f"{head({'alg': 'none'})}.{claims}.", f"{head({'alg': 'none'})}.{claims}.{signature}",
            f"{head({'alg': 'HS256', 'kid': 'key-1'})}.{claims}.{signature}", f"{head({'alg': 'RS256', 'kid': 'key-9'})}.{claims}.{signature}"]


def run(host, nodes, provider):
    """host is HOST:PORT by which the nodes are one service; provider is stopped at the end."""
    flow = Flow(host, nodes, "alice")
    tokens, back = flow.login("idp")
    for user in flow.users(tokens["access_token"]):
        must(user.get("id") == "idp:alice" and user["profile"]["email"] == "alice@example.org", f"the access token is of {user}")
    again = flow.node(back)
    must(again.status_code == 400 and again.json()["details"][0]["errno"] == 105, f"the state is good twice: {again.text}")
    yield "a login that one node begins another one ends, once, and all know the user"

    tokens, _ = flow.login("local")
    for user in flow.users(tokens["id_token"]):
        must(user.get("id") == "local:alice", f"the ID token is of {user}")
    for token in forge(tokens["id_token"]):
        must(not any(flow.users(token)), f"a forged token is good: {token}")
    yield "ID tokens are verified by the provider's key; forged ones are nobody's"

    provider.rotate()
    flow = Flow(host, nodes, "bob")
    deadline = time.monotonic() + SECONDS
    tokens, _ = flow.login("idp")  # without the ID token's check it would not end: its key is new
    while [user.get("id") for user in flow.users(tokens["id_token"])] != ["local:bob"] * len(nodes):
        must(time.monotonic() < deadline, "the nodes do not find the new key")
        time.sleep(0.2)
    yield "new keys are found when the provider signs with them"

    provider.stop()
    must(all(user.get("id") == "local:bob" for user in flow.users(tokens["id_token"])), "who is known is forgotten without the provider")
    must(not any(flow.users("unknown")), "an unknown token is good without the provider")
    must(flow.node("/buckets", "unknown").status_code == 401, "no 401 without the provider")
    yield "without the provider known users stay, others get 401"
