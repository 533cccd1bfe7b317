"""One request over Python's own TLS and HTTP. Usage: est.py METHOD HOST PORT PATH CA CERTIFICATE KEY [CONTENT-TYPE BODY-FILE]

Prints status and content type, each on a line, then the body.
"""

import http.client
import socket
import ssl
import sys

method, host, port, path, ca, certificate, key, *sent = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(certificate, key)
context.set_alpn_protocols(["http/1.1"])


class Connection(http.client.HTTPSConnection):
    """Connects to loopback, whatever the name."""

    def connect(self):
        stream = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
        self.sock = context.wrap_socket(stream, server_hostname=host)


headers = {"content-type": sent[0], "content-transfer-encoding": "base64"} if sent else {}
body = open(sent[1], "rb").read() if sent else None
connection = Connection(host, context=context)
connection.request(method, path, body=body, headers=headers)
answer = connection.getresponse()
print(answer.status)
print(answer.getheader("content-type"))
sys.stdout.write(answer.read().decode())
