// A greeter: node tool.mjs ADDRESS DESCRIPTOR_SET SERVICE raw|library
//
// raw: reflection serves the compiled set as it is. library: @grpc/reflection.
import fs from "node:fs";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { addReflection } from "./reflection.mjs";

const [address, file, service, mode] = process.argv.slice(2);
const set = fs.readFileSync(file);
const definition = protoLoader.loadFileDescriptorSetFromBuffer(set);
const server = new grpc.Server();

server.addService(definition[service], {
  Greet(call, callback) {
    const [subject] = call.metadata.get("x-llmesh-subject");
    callback(null, { text: `hello ${call.request.name}, says ${subject}` });
  },
  Forget(_call, callback) {
    callback(null, {});
  },
});
if (mode === "raw") addReflection(server, set, [service]);
else new ReflectionService(definition, { services: [service] }).addToServer(server);

server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  console.log("serving", address);
});
process.on("SIGTERM", () => server.tryShutdown(() => process.exit(0)));
