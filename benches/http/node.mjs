// Node's own HTTP server, answering `hello, world`. Usage: node node.mjs PORT
import { createServer } from "node:http";

createServer((_request, response) => response.end("hello, world")).listen(
  Number(process.argv[2]),
  "127.0.0.1",
);
