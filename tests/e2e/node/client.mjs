// An ordinary client: node client.mjs ADDRESS TOKEN PROTO INCLUDES SERVICE METHOD JSON
//
// Prints {"answers": [...]} or {"code", "message", "details"}, details being the
// bytes of grpc-status-details-bin in base64.
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [address, token, proto, includes, service, method, request] = process.argv.slice(2);
const definition = protoLoader.loadSync(proto, { includeDirs: includes.split(":"), keepCase: true });
const Client = service.split(".").reduce((at, name) => at[name], grpc.loadPackageDefinition(definition));
const client = new Client(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);

function show(result) {
  console.log(JSON.stringify(result));
  client.close();
}

function fail(error) {
  const [details] = error.metadata.get("grpc-status-details-bin");
  show({ code: error.code, message: error.details, details: details?.toString("base64") ?? "" });
}

if (definition[service][method].responseStream) {
  const answers = [];
  const call = client[method](JSON.parse(request), metadata);
  call.on("data", (answer) => answers.push(answer));
  call.on("end", () => show({ answers }));
  call.on("error", fail);
} else {
  client[method](JSON.parse(request), metadata, (error, answer) => (error ? fail(error) : show({ answers: [answer] })));
}
