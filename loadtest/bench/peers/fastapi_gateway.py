# fastapi_gateway - FastAPI and httpx as a gateway, as one writes it: fastapi_gateway.py UPSTREAM
import socket
import sys

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

app = FastAPI()
client = httpx.AsyncClient(base_url=sys.argv[1], timeout=60,
                           limits=httpx.Limits(max_connections=None, max_keepalive_connections=2000, keepalive_expiry=60))


@app.post("/v1/chat/completions")
async def chat(request: Request):
    question = client.build_request("POST", "/chat/completions", json=await request.json(),
                                    headers={"authorization": "Bearer sk-test"})
    answer = await client.send(question, stream=True)
    kind = answer.headers["content-type"]
    if kind.startswith("text/event-stream"):
        async def pieces():
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()
        return StreamingResponse(pieces(), status_code=answer.status_code, media_type=kind)
    return Response(await answer.aread(), status_code=answer.status_code, media_type=kind)


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", 0))
listener.listen(2048)
config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False, backlog=2048,
                        timeout_keep_alive=60)
print("listening 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
uvicorn.Server(config).run(sockets=[listener])
