/* A gRPC server that is never the limit: a call costs it about 2 us.
 *
 * backend SOCKET ANSWERS: serves HTTP/2 on a Unix socket, one thread, until it is killed.
 * ANSWERS is a file of entries (path, request, answer), each a length of four
 * bytes, network order, and that many bytes. A call gets the answer of the entry that has its
 * path and its request (a whole gRPC frame); the last entry is for every other call, but for those
 * to the server's own services (`/grpc.`) and what the mesh tells a tool (`/llmesh.`), which it does not have.
 * `/bench.Backend/Answered` tells how many of the others it has answered, in decimal.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_ENTRIES 64
#define MAX_REQUEST 4096
#define OWN "/grpc."
#define MESH "/llmesh."
#define COUNT "/bench.Backend/Answered"
#define FIELD(name, value) \
  {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, NGHTTP2_NV_FLAG_NONE}

typedef struct { const uint8_t *bytes; size_t size; } Text;
typedef struct { Text path, request, answer; } Entry;
typedef struct {
  char path[256];
  uint8_t request[MAX_REQUEST];
  size_t request_size, sent;
  Text answer;
} Call;
typedef struct {
  int socket;
  nghttp2_session *session;
} Connection;

static Entry entries[MAX_ENTRIES];
static size_t entry_count;
static unsigned long answered;
static uint8_t count_frame[32];

static Text take(const uint8_t **at) {
  uint32_t size;
  memcpy(&size, *at, 4);
  Text text = {*at + 4, ntohl(size)};
  *at = text.bytes + text.size;
  return text;
}

static void read_answers(const char *name) {
  FILE *file = fopen(name, "rb");
  struct stat facts;
  if (!file || fstat(fileno(file), &facts)) err(1, "%s", name);
  uint8_t *bytes = malloc((size_t)facts.st_size);
  if (fread(bytes, 1, (size_t)facts.st_size, file) != (size_t)facts.st_size) err(1, "%s", name);
  fclose(file);
  for (const uint8_t *at = bytes; at < bytes + facts.st_size && entry_count < MAX_ENTRIES; entry_count++) {
    entries[entry_count].path = take(&at);
    entries[entry_count].request = take(&at);
    entries[entry_count].answer = take(&at);
  }
}

static int same(Text text, const void *bytes, size_t size) {
  return text.size == size && !memcmp(text.bytes, bytes, size);
}

/* Of no bytes: there is none. */
static Text answer_of(const Call *call) {
  if (!strcmp(call->path, COUNT)) {
    int digits = sprintf((char *)count_frame + 5, "%lu", answered);
    count_frame[4] = (uint8_t)digits;
    return (Text){count_frame, 5 + (size_t)digits};
  }
  if (!strncmp(call->path, MESH, sizeof MESH - 1)) return (Text){NULL, 0};
  if (strncmp(call->path, OWN, sizeof OWN - 1)) {
    answered++;
    return entries[entry_count - 1].answer;
  }
  for (size_t number = 0; number + 1 < entry_count; number++) {
    const Entry *entry = &entries[number];
    if (same(entry->path, call->path, strlen(call->path)) && same(entry->request, call->request, call->request_size))
      return entry->answer;
  }
  return (Text){NULL, 0};
}

static ssize_t read_answer(nghttp2_session *session, int32_t stream, uint8_t *buffer, size_t size,
                                 uint32_t *flags, nghttp2_data_source *source, void *connection) {
  (void)connection;
  Call *call = source->ptr;
  size_t left = call->answer.size - call->sent, now = left < size ? left : size;
  memcpy(buffer, call->answer.bytes + call->sent, now);
  call->sent += now;
  if (now == left) {
    nghttp2_nv trailers[] = {FIELD("grpc-status", "0")};
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, stream, trailers, 1);
  }
  return (ssize_t)now;
}

static void answer(nghttp2_session *session, int32_t stream, Call *call) {
  nghttp2_nv good[] = {FIELD(":status", "200"), FIELD("content-type", "application/grpc")};
  nghttp2_nv none[] = {good[0], good[1], FIELD("grpc-status", "12")};
  nghttp2_data_provider from = {{.ptr = call}, read_answer};
  call->answer = answer_of(call);
  if (call->answer.size)
    nghttp2_submit_response(session, stream, good, 2, &from);
  else
    nghttp2_submit_response(session, stream, none, 3, NULL);
}

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *connection) {
  (void)connection;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    Call *call = malloc(sizeof *call);
    call->path[0] = 0, call->request_size = call->sent = 0;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
  }
  return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t size, uint8_t flags, void *connection) {
  (void)flags, (void)connection;
  Call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (call && name_size == 5 && !memcmp(name, ":path", 5) && size < sizeof call->path) {
    memcpy(call->path, value, size);
    call->path[size] = 0;
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t size,
                   void *connection) {
  (void)flags, (void)connection;
  Call *call = nghttp2_session_get_stream_user_data(session, stream);
  if (call && call->request_size + size <= MAX_REQUEST) {
    memcpy(call->request + call->request_size, bytes, size);
    call->request_size += size;
  }
  return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *connection) {
  (void)connection;
  int carries = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
  if (carries && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
    Call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call) answer(session, frame->hd.stream_id, call);
  }
  return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *connection) {
  (void)code, (void)connection;
  free(nghttp2_session_get_stream_user_data(session, stream));
  return 0;
}

static Connection *connection_of(int socket) {
  static nghttp2_session_callbacks *callbacks;
  if (!callbacks) {
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  }
  Connection *connection = calloc(1, sizeof *connection);
  nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 10000},
                                       {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
  connection->socket = socket;
  nghttp2_session_server_new(&connection->session, callbacks, connection);
  nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2);
  return connection;
}

static int write_all(int socket, const uint8_t *bytes, size_t size) {
  while (size) {
    ssize_t sent = write(socket, bytes, size);
    if (sent <= 0) return 0;
    bytes += sent, size -= (size_t)sent;
  }
  return 1;
}

/* Whether the connection still stands. What there is to say goes out in as few writes as possible. */
static int send_all(Connection *connection) {
  static uint8_t out[1 << 17];
  const uint8_t *made;
  ssize_t made_size;
  size_t size = 0;
  while ((made_size = nghttp2_session_mem_send(connection->session, &made)) > 0) {
    if (size + (size_t)made_size > sizeof out) {
      if (!write_all(connection->socket, out, size)) return 0;
      size = 0;
    }
    memcpy(out + size, made, (size_t)made_size);
    size += (size_t)made_size;
  }
  return made_size == 0 && write_all(connection->socket, out, size);
}

static void serve(Connection *connection) {
  static uint8_t in[1 << 16];
  ssize_t size = read(connection->socket, in, sizeof in);
  int stands = size > 0 && nghttp2_session_mem_recv(connection->session, in, (size_t)size) >= 0;
  if (stands && send_all(connection)) return;
  nghttp2_session_del(connection->session);
  close(connection->socket);
  free(connection);
}

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int listening = socket(AF_UNIX, SOCK_STREAM, 0);
  if (strlen(path) >= sizeof address.sun_path) errx(1, "%s: too long", path);
  strcpy(address.sun_path, path);
  if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 128)) err(1, "%s", path);
  return listening;
}

int main(int count, char **arguments) {
  if (count != 3) errx(2, "usage: backend SOCKET ANSWERS");
  signal(SIGPIPE, SIG_IGN);
  read_answers(arguments[2]);
  int listening = listen_at(arguments[1]), ready = epoll_create1(0);
  struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL}, found[64];
  epoll_ctl(ready, EPOLL_CTL_ADD, listening, &wanted);
  for (;;) {
    int number = epoll_wait(ready, found, 64, -1);
    while (number-- > 0) {
      if (found[number].data.ptr) {
        serve(found[number].data.ptr);
      } else {
        wanted.data.ptr = connection_of(accept(listening, NULL, NULL));
        epoll_ctl(ready, EPOLL_CTL_ADD, ((Connection *)wanted.data.ptr)->socket, &wanted);
      }
    }
  }
}
