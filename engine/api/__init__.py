"""The management API: HTTP and JSON on the unix socket `DATA/api.sock`.

service.py   Service: what the API asks of a running site
address.py   where the socket is, also under a path too long for a socket's name
replies.py   JSON <-> documents and errors, for clients; standard library only
client.py    Client: one method a question, and waiting for a job; standard library only
routes.py    the paths: reads, long polls, POST /v1/jobs
server.py    Litestar on uvicorn inside the daemon's loop; OpenAPI at /schema
"""
