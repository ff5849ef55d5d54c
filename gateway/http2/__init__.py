"""A client of HTTP/2, for gRPC calls with one request and one response. frames -> connection -> wire; reply is pure."""
