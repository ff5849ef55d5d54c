// Asks every tool that takes a request, with nothing but .proto files:
// node fanout.mjs ADDRESS TOKEN INCLUDES TYPE JSON [CEL]
//
// Prints a line of JSON for each branch once it has ended, then {"summary"}, or
// {"code", "message"} if nothing could be sent. A request goes into an Any, and
// answers come out of one: TYPE_URL and the message's bytes.
import fs from "node:fs";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const TYPE_URL = "type.googleapis.com/";
const [address, token, includes, type, request, where = ""] = process.argv.slice(2);
const includeDirs = includes.split(":");

// The messages that go into an Any and come out of it, by their full names. By
// convention, the file of a package's messages is named for it.
const messages = new protobuf.Root();
messages.resolvePath = (_, file) =>
  includeDirs.map((folder) => path.join(folder, file)).find((found) => fs.existsSync(found)) ?? file;

function fileOf(name) {
  const folders = name.split(".").slice(0, -1);
  return path.join(...folders, `${folders.at(-2)}.proto`);
}

function pack(name, value) {
  const found = messages.lookupType(name);
  return { type_url: TYPE_URL + name, value: found.encode(found.fromObject(value)).finish() };
}

function unpack(any) {
  const found = messages.lookupType(any.type_url.slice(TYPE_URL.length));
  return found.toObject(found.decode(any.value));
}

function print(value) {
  console.log(JSON.stringify(value));
}

messages.loadSync(fileOf(type), { keepCase: true });
const definition = protoLoader.loadSync("llmesh/api/mesh/v1/mesh.proto", { includeDirs, keepCase: true, enums: String });
const { MeshService } = grpc.loadPackageDefinition(definition).llmesh.api.mesh.v1;
const client = new MeshService(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);

const call = client.FanOut({ request: pack(type, JSON.parse(request)), selector: { where } }, metadata);
call.on("data", ({ branches = [], summary }) => {
  for (const { tool, method, responses = [], status } of branches) {
    // A branch that goes on has no status; one that ended with OK has an empty one.
    const code = status ? (status.code ?? 0) : null;
    print({ tool, method, code, message: status?.message ?? "", responses: responses.map(unpack) });
  }
  if (summary) print({ summary });
});
call.on("end", () => client.close());
call.on("error", ({ code, details }) => {
  print({ code, message: details });
  client.close();
});
