"""An SMTP server for tests (aiosmtpd): it appends what it takes to a file, one JSON
object a line, before it says so. It refuses refused@… for ever and later@… once for
each mail, is slow with slow@…, and fails every n-th mail if it is told to.

    server.py --port N --out FILE [--cert FILE --key FILE [--implicit]] [--user U --password P] [--fail-every N]
"""

import argparse
import asyncio
import email
import email.policy
import json
import os
import signal
import ssl

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Handler:
    def __init__(self, out, fail_every):
        self.out = open(out, "ab")
        self.fail_every = fail_every
        self.taken = 0
        self.later = False

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "refused":
            return "550 no such mailbox"
        if name == "later":
            self.later = not self.later
            if self.later:
                return "451 come back later"
        if name == "slow":
            await asyncio.sleep(0.5)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.taken += 1
        if self.fail_every and self.taken % self.fail_every == 0:
            return "451 something is wrong"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        line = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "user": session.authenticated,
            "headers": [[k, str(v)] for k, v in message.items()],
            "body": message.get_content(),
        }
        self.out.write(json.dumps(line).encode() + b"\n")
        self.out.flush()
        os.fsync(self.out.fileno())
        return "250 taken"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--cert")
    p.add_argument("--key")
    p.add_argument("--implicit", action="store_true")
    p.add_argument("--user")
    p.add_argument("--password")
    p.add_argument("--fail-every", type=int, default=0)
    a = p.parse_args()
    more = {}
    if a.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(a.cert, a.key)
        more.update({"ssl_context": context} if a.implicit else {"tls_context": context, "require_starttls": True})
    if a.user:
        wanted = (a.user.encode(), a.password.encode())

        def check(server, session, envelope, mechanism, data):
            return AuthResult(success=(data.login, data.password) == wanted, handled=False)

        # aiosmtpd does not count implicit TLS as TLS.
        more.update(authenticator=check, auth_required=True, auth_require_tls=not a.implicit)
    controller = Controller(Handler(a.out, a.fail_every), hostname="127.0.0.1", port=a.port, **more)
    controller.start()
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    controller.stop()


main()
