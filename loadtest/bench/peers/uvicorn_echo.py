# uvicorn_echo - uvicorn with `websockets`, uvloop and httptools as a server that answers {"action":"ping"} with
# {"status":"pong"}: uvicorn_echo.py [deflate]
import json
import socket
import sys

import uvicorn


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if json.loads(message["text"]).get("action") == "ping":
            await send({"type": "websocket.send", "text": json.dumps({"status": "pong"})})


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", 0))
listener.listen(2048)
config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="websockets", log_level="warning", access_log=False,
                        ws_per_message_deflate="deflate" in sys.argv[1:], backlog=2048)
print("listening 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
uvicorn.Server(config).run(sockets=[listener])
