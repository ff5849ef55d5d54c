// Server reflection that serves a compiled descriptor set byte for byte.
//
// @grpc/reflection encodes every file anew by protobufjs, which drops options
// that it does not know, LL-Mesh's among them.
import { createRequire } from "node:module";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import descriptor from "protobufjs/ext/descriptor/index.js";
import protobuf from "protobufjs";

const NOT_FOUND = 5;

// The bytes of each file in a FileDescriptorSet: its field 1, as often as there are files.
function* filesOf(set) {
  const reader = protobuf.Reader.create(set);
  while (reader.pos < reader.len) {
    reader.uint32();
    yield reader.bytes();
  }
}

function readSet(set) {
  const files = new Map();
  const symbols = new Map();
  for (const bytes of filesOf(set)) {
    const file = descriptor.FileDescriptorProto.decode(bytes);
    files.set(file.name, { bytes, dependency: file.dependency });
    for (const { name } of [...file.service, ...file.messageType]) symbols.set(`${file.package}.${name}`, file.name);
  }
  return { files, symbols };
}

export function addReflection(server, set, services) {
  const { files, symbols } = readSet(set);
  const folder = path.dirname(createRequire(import.meta.url).resolve("@grpc/reflection/package.json"));
  const definition = protoLoader.loadSync(path.join(folder, "build/proto/grpc/reflection/v1/reflection.proto"));
  const { service } = grpc.loadPackageDefinition(definition).grpc.reflection.v1.ServerReflection;

  function answer(request) {
    if (request.listServices !== undefined) {
      return { listServicesResponse: { service: services.map((name) => ({ name })) } };
    }
    const name = request.fileByFilename ?? symbols.get(request.fileContainingSymbol);
    const file = files.get(name);
    return file
      ? { fileDescriptorResponse: { fileDescriptorProto: [file.bytes] } }
      : { errorResponse: { errorCode: NOT_FOUND, errorMessage: "not here" } };
  }

  server.addService(service, {
    ServerReflectionInfo(stream) {
      stream.on("data", (request) => stream.write({ originalRequest: request, ...answer(request) }));
      stream.on("end", () => stream.end());
    },
  });
}
