"""A Weights & Biases server on loopback: enough GraphQL and file stream for the real client to log runs and read them.

GraphQL documents are parsed and validated against a schema, and what does not fit is answered with an error and kept in
`problems`, as are file-stream requests of the wrong form. Nothing is asked of the network.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphql import GraphQLError, GraphQLSchema, build_schema, graphql_sync

API_KEY = "0123456789abcdef0123456789abcdef01234567"
ENTITY = "loopback"

_SCHEMA = """
scalar JSONString
scalar JSON
scalar Int64
scalar DateTime

type Query {
  viewer: User
  serverInfo: ServerInfo!
  organization(name: String!): Organization
  entity(name: String!): Entity
  project(name: String, entityName: String): Project
  model(name: String, entityName: String): Project
  artifact(id: ID!): Artifact
}

type Mutation {
  upsertBucket(input: UpsertBucketInput!): UpsertBucketPayload
  createRunFiles(input: CreateRunFilesInput!): CreateRunFilesPayload
  markRunFilesUploaded(input: MarkRunFilesUploadedInput!): MarkRunFilesUploadedPayload
  createArtifact(input: CreateArtifactInput!): CreateArtifactPayload
  createArtifactManifest(input: CreateArtifactManifestInput!): CreateArtifactManifestPayload
  updateArtifactManifest(input: UpdateArtifactManifestInput!): CreateArtifactManifestPayload
  createArtifactFiles(input: CreateArtifactFilesInput!): CreateArtifactFilesPayload
  commitArtifact(input: CommitArtifactInput!): CommitArtifactPayload
}

type ServerInfo { features: [ServerFeature!]! cliVersionInfo: JSON }
type ServerFeature { name: String! isEnabled: Boolean! }
type Organization { featureFlags(rampIDType: RampIDType!): [FeatureFlag!]! }
type FeatureFlag { rampKey: String! isEnabled: Boolean! }
enum RampIDType { OrgName }

type User {
  id: ID! name: String username: String email: String entity: String flags: JSONString teams: EntityConnection
  admin: Boolean
}
type EntityConnection { edges: [EntityEdge!]! }
type EntityEdge { node: Entity }
type Entity { id: ID! name: String! xxhashDigestsEnabled: Boolean }

type Project {
  id: ID! internalId: ID! name: String! entityName: String! entity: Entity! readOnly: Boolean
  runCount(filters: JSONString): Int
  run(name: String!): Run
  bucket(name: String!, missingOk: Boolean): Run
  runs(filters: JSONString, after: String, first: Int, order: String): RunConnection
  artifactType(name: String!): ArtifactType
  artifact(name: String!): Artifact
}
type RunConnection { edges: [RunEdge!]! pageInfo: PageInfo! }
type RunEdge { node: Run! cursor: String! }
type PageInfo { endCursor: String hasNextPage: Boolean! }

type Run {
  id: ID! projectId: ID! name: String! displayName: String sweepName: String state: String config: JSONString
  group: String jobType: String commit: String readOnly: Boolean createdAt: DateTime heartbeatAt: DateTime
  description: String notes: String tags: [String!] systemMetrics: JSONString summaryMetrics: JSONString
  historyLineCount: Int eventsLineCount: Int logLineCount: Int historyTail: JSONString eventsTail: JSONString
  historyKeys: JSON user: User project: Project! wandbConfig(keys: [String!]!): JSONString
  history(minStep: Int64, maxStep: Int64, samples: Int): [JSONString!]
  parquetHistory(liveKeys: [String!]!): ParquetHistory
}
type ParquetHistory { parquetUrls: [String!]! liveData: [JSON!] }

input UpsertBucketInput { clientMutationId: String
  id: String name: String groupName: String modelName: String entityName: String description: String
  displayName: String notes: String config: JSONString commit: String host: String debug: Boolean jobProgram: String
  jobRepo: String jobType: String state: String sweep: String tags: [String!] summaryMetrics: JSONString
}
type UpsertBucketPayload { bucket: Run! inserted: Boolean }

input CreateRunFilesInput {
  clientMutationId: String entityName: String! projectName: String! runName: String! files: [String!]!
}
type CreateRunFilesPayload { runID: ID uploadHeaders: [String!]! files: [RunFile!]! }
type RunFile { name: String! uploadUrl: String! }
input MarkRunFilesUploadedInput {
  clientMutationId: String entityName: String! projectName: String! runName: String! files: [String!]!
}
type MarkRunFilesUploadedPayload { success: Boolean! }

type ArtifactType { name: String! artifactCollection(name: String!): ArtifactCollection }
interface ArtifactCollection { id: ID! name: String! project: Project }
type ArtifactSequence implements ArtifactCollection {
  id: ID! name: String! project: Project digestAlgorithm: String latestArtifact: Artifact
}
type ArtifactAlias { id: ID! alias: String! artifactCollection: ArtifactCollection }
type Tag { id: ID! name: String! }
type Artifact {
  id: ID! artifactType: ArtifactType! artifactSequence: ArtifactSequence! state: String! digest: String!
  digestAlgorithm: String versionIndex: Int description: String metadata: JSONString ttlDurationSeconds: Int64
  ttlIsInherited: Boolean! tags: [Tag!]! historyStep: Int64 size: Int64! commitHash: String fileCount: Int64!
  createdAt: DateTime! updatedAt: DateTime aliases: [ArtifactAlias!]!
}
input ArtifactAliasInput {
  clientMutationId: String artifactCollectionName: String! alias: String! entityName: String projectName: String
}
enum ArtifactManifestType { FULL PATCH INCREMENTAL }
enum ArtifactStorageLayout { V1 V2 }
input CreateArtifactInput { clientMutationId: String
  entityName: String! projectName: String! runName: String artifactTypeName: String! artifactCollectionName: String
  artifactCollectionNames: [String!] digest: String! digestAlgorithm: String description: String
  labels: JSONString metadata: JSONString aliases: [ArtifactAliasInput!] tags: [ArtifactTagInput!] distributedID: String
  clientID: ID! sequenceClientID: ID! ttlDurationSeconds: Int64 historyStep: Int64 enableDigestDeduplication: Boolean
  storageRegion: String
}
input ArtifactTagInput { clientMutationId: String tagName: String! }
type CreateArtifactPayload { artifact: Artifact! }
input CreateArtifactManifestInput { clientMutationId: String
  artifactID: ID! baseArtifactID: ID name: String! digest: String! entityName: String! projectName: String!
  runName: String! type: ArtifactManifestType!
}
input UpdateArtifactManifestInput { clientMutationId: String artifactManifestID: ID! digest: String baseArtifactID: ID }
type CreateArtifactManifestPayload { artifactManifest: ArtifactManifest! }
type ArtifactManifest { id: ID! file: ArtifactFile! }
type ArtifactFile {
  id: ID! name: String uploadUrl: String uploadHeaders: [String!] storagePath: String
  uploadMultipartUrls: MultipartUrls artifact: Artifact
}
type MultipartUrls { uploadID: ID uploadUrlParts: [UploadUrlPart!]! }
type UploadUrlPart { partNumber: Int! uploadUrl: String! }
input CreateArtifactFilesInput {
  clientMutationId: String artifactFiles: [CreateArtifactFileSpecInput!]! storageLayout: ArtifactStorageLayout
  cloudRegionID: ID
}
input CreateArtifactFileSpecInput { clientMutationId: String
  artifactID: ID! name: String! md5: String! mimetype: String artifactManifestID: ID uploadPartsInput:
  [UploadPartsInput!]
}
input UploadPartsInput { clientMutationId: String partNumber: Int64! hexMD5: String! }
type CreateArtifactFilesPayload { files: ArtifactFileConnection! }
type ArtifactFileConnection { edges: [ArtifactFileEdge!]! }
type ArtifactFileEdge { node: ArtifactFile }
input CommitArtifactInput { clientMutationId: String artifactID: ID! }
type CommitArtifactPayload { artifact: Artifact! }
"""


@dataclass
class Run:
    """A run as the server holds it."""

    id: str
    name: str
    project: tuple[str, str]
    created_at: str
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    state: str = "running"
    sessions: int = 0

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The config that the user set."""
        return {key: item["value"] for key, item in self.config.items() if key != "_wandb"}


@dataclass
class Request:
    """One HTTP request: what a fault may depend on.

    `kind` is the GraphQL operation's name, "file_stream", or "file".
    """

    kind: str
    path: str
    body: Any


Fault = Callable[[Request], "float | int | str | None"]
"""Answers None to serve the request, an HTTP status to refuse it, "cut" to close the connection without an answer, or
"hang" to answer nothing until the server stops."""


class WandbServer:
    """The server. Use it as a context manager; `stop` and `start` keep its runs and its port."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.fault: Fault | None = None
        self.retry_after: int | None = None
        self.lock = threading.RLock()
        self._stopping = threading.Event()
        self._schema = _build_schema()
        self._server: _Server | None = None
        self._port = 0

    def __enter__(self) -> WandbServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._stopping.clear()
        self._server = _Server(("127.0.0.1", self._port), _handler_of(self))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Die: no new connection, and those that are open are cut."""
        if self._server is not None:
            self._stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._server.cut_connections()
            self._server = None

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def forget(self) -> None:
        """Begin anew, but for the runs, in which tests do not meet."""
        self.requests, self.problems, self.fault, self.retry_after = [], [], None, None
        if self._server is None:
            self.start()

    def environment(self) -> dict[str, str]:
        """What makes the client use this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY}

    def kinds(self) -> list[str]:
        return [request.kind for request in self.requests]

    def in_group(self, group: str) -> list[Run]:
        return [run for run in self.runs.values() if run.fields.get("groupName") == group]

    # ---- answering

    def graphql(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            result = graphql_sync(
                self._schema,
                body["query"],
                root_value=_Root(self),
                variable_values=body.get("variables"),
                operation_name=body.get("operationName") or None,
            )
            for error in result.errors or []:
                if not isinstance(error.original_error, _NotFound):
                    self.problems.append(f"{error} in {body['query']}")
        return dict(result.formatted)

    def file_stream(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            run = self.runs[path]
            for file, chunk in (body.get("files") or {}).items():
                offset, content = chunk["offset"], chunk["content"]
                lines = run.lines.setdefault(file, [])
                if file == "wandb-summary.json":
                    run.summary = json.loads(content[-1])
                    continue
                if offset > len(lines):
                    self.problems.append(f"{file} goes on at line {offset} after {len(lines)} lines")
                lines[offset : offset + len(content)] = content
                if file == "wandb-history.jsonl":
                    run.history = [json.loads(line) for line in lines]
            if body.get("complete"):
                run.state = "finished" if body.get("exitcode") == 0 else "failed"
            return {"limits": {}, "stopped": False}


class _NotFound(GraphQLError):
    pass


class _Root:
    """Resolvers: graphql-core calls the methods that are named as the schema's fields."""

    def __init__(self, server: WandbServer) -> None:
        self._server = server

    def viewer(self, info: Any) -> dict[str, Any]:
        return {
            "id": "VXNlcjox",
            "name": "Loop Back",
            "username": ENTITY,
            "email": "loopback@localhost",
            "entity": ENTITY,
            "flags": "{}",
            "teams": {"edges": [{"node": {"id": "1", "name": ENTITY}}]},
        }

    def serverInfo(self, info: Any) -> dict[str, Any]:
        return {"features": [], "cliVersionInfo": {"max_cli_version": "99.0.0", "latest_version": {}}}

    def organization(self, info: Any, name: str) -> None:
        return None

    def entity(self, info: Any, name: str) -> dict[str, Any]:
        return {"id": "1", "name": name, "xxhashDigestsEnabled": False}

    def project(self, info: Any, name: str | None = None, entityName: str | None = None) -> _Project | None:
        key = (entityName or ENTITY, name or "uncategorized")
        known = any(run.project == key for run in self._server.runs.values())
        return _Project(self._server, key) if known else None

    model = project

    def upsertBucket(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        entity, project = input.get("entityName") or ENTITY, input.get("modelName") or "uncategorized"
        if input.get("id"):
            run = next(run for run in self._server.runs.values() if run.id == input["id"])
        else:
            key = f"{entity}/{project}/{input['name']}"
            inserted = key not in self._server.runs
            if inserted:
                number = str(len(self._server.runs) + 1)
                identity = base64.b64encode(f"Run:v1:{input['name']}:{project}:{entity}".encode()).decode()
                created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{int(number):06d}Z"
                self._server.runs[key] = Run(identity, input["name"], (entity, project), created)
            run = self._server.runs[key]
            run.sessions += 1
            run.state = "running"
        if input.get("config") is not None:
            run.config = json.loads(input["config"])
        if input.get("summaryMetrics") is not None:
            run.summary = json.loads(input["summaryMetrics"])
        skipped = ("config", "summaryMetrics", "id", "name", "modelName", "entityName")
        run.fields |= {key: value for key, value in input.items() if key not in skipped and value is not None}
        return {"bucket": _RunView(self._server, run), "inserted": not input.get("id") and inserted}

    def createRunFiles(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        run = self._server.runs[f"{input['entityName']}/{input['projectName']}/{input['runName']}"]
        files = [
            {"name": name, "uploadUrl": f"{self._server.url}/storage/{run.name}/{name}"} for name in input["files"]
        ]
        return {"runID": run.id, "uploadHeaders": [], "files": files}

    def markRunFilesUploaded(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    # ---- artifacts

    def createArtifact(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        self._server.artifacts.append(input | {"id": f"artifact-{len(self._server.artifacts)}", "state": "PENDING"})
        return {"artifact": self._artifact(self._server.artifacts[-1])}

    def createArtifactManifest(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        path = f"{input['artifactID']}/{input['name']}"
        return {"artifactManifest": {"id": path, "file": self._file(input["artifactID"], input["name"])}}

    def updateArtifactManifest(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        artifact, name = input["artifactManifestID"].split("/")
        return {"artifactManifest": {"id": input["artifactManifestID"], "file": self._file(artifact, name)}}

    def createArtifactFiles(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        files = [self._file(spec["artifactID"], spec["name"]) for spec in input["artifactFiles"]]
        return {"files": {"edges": [{"node": file} for file in files]}}

    def commitArtifact(self, info: Any, input: dict[str, Any]) -> dict[str, Any]:
        artifact = next(one for one in self._server.artifacts if one["id"] == input["artifactID"])
        artifact["state"] = "COMMITTED"
        return {"artifact": self._artifact(artifact)}

    def artifact(self, info: Any, id: str) -> dict[str, Any]:
        return self._artifact(next(one for one in self._server.artifacts if one["id"] == id))

    def _artifact(self, artifact: dict[str, Any]) -> dict[str, Any]:
        project = _Project(self._server, (artifact["entityName"], artifact["projectName"]))
        sequence = {"id": "sequence", "name": artifact["artifactCollectionName"], "project": project}
        aliases = [
            {"id": item["alias"], "alias": item["alias"], "artifactCollection": sequence}
            for item in artifact["aliases"]
        ]
        empty = {
            "ttlIsInherited": True,
            "ttlDurationSeconds": -2,
            "tags": [],
            "size": 1,
            "fileCount": 1,
            "versionIndex": 0,
        }
        return {
            **{key: artifact[key] for key in ("id", "state", "digest", "metadata")},
            **empty,
            "artifactType": {"name": artifact["artifactTypeName"]},
            "artifactSequence": sequence,
            "createdAt": "2026-01-01T00:00:00Z",
            "aliases": aliases,
        }

    def _file(self, artifact: str, name: str) -> dict[str, Any]:
        url = f"{self._server.url}/storage/{artifact}/{name}"
        file = {"id": f"{artifact}/{name}", "name": name, "uploadUrl": url, "uploadHeaders": [], "storagePath": name}
        return file | {"artifact": self._artifact(next(one for one in self._server.artifacts if one["id"] == artifact))}


class _Project:
    """A project, which exists as soon as it has a run."""

    def __init__(self, server: WandbServer, key: tuple[str, str]) -> None:
        self._server = server
        self.entityName, self.name = key
        self.id = base64.b64encode(f"Project:v1:{key[1]}:{key[0]}".encode()).decode()
        self.internalId = "1"
        self.readOnly = False
        self.entity = {"id": "1", "name": self.entityName}

    def run(self, info: Any, name: str, missingOk: bool = False) -> _RunView | None:
        run = self._server.runs.get(f"{self.entityName}/{self.name}/{name}")
        return None if run is None else _RunView(self._server, run)

    bucket = run

    def artifactType(self, info: Any, name: str) -> None:
        return None

    def artifact(self, info: Any, name: str) -> None:
        return None

    def runCount(self, info: Any, filters: str | None = None) -> int:
        return len(self._matching(filters))

    def runs(
        self, info: Any, filters: str | None = None, after: str | None = None, first: int = 50, order: str | None = None
    ) -> dict[str, Any]:
        """At most 1,000 runs a page, in the order of `order`, as the service does."""
        matching = self._matching(filters)
        descending, key = (order or "-createdAt").startswith("-"), (order or "-createdAt").lstrip("+-")
        if key not in ("createdAt", "created_at", "displayName", "display_name"):
            raise GraphQLError(f"runs cannot be ordered by {key}")
        by_name = key.startswith("display")
        matching.sort(
            key=lambda run: str(run.fields.get("displayName")) if by_name else run.created_at, reverse=descending
        )
        start = int(base64.b64decode(after)) if after else 0
        page = matching[start : start + min(first, 1000)]
        edges = [
            {"node": _RunView(self._server, run), "cursor": base64.b64encode(str(start + index + 1).encode()).decode()}
            for index, run in enumerate(page)
        ]
        more = start + len(page) < len(matching)
        return {
            "edges": edges,
            "pageInfo": {"endCursor": edges[-1]["cursor"] if edges else None, "hasNextPage": more},
        }

    def _matching(self, filters: str | None) -> list[Run]:
        condition = json.loads(filters or "{}")
        mine = [run for run in self._server.runs.values() if run.project == (self.entityName, self.name)]
        return [run for run in mine if _matches(run, condition)]


def _matches(run: Run, condition: dict[str, Any]) -> bool:
    """The part of MongoDB's query language that is used."""
    for key, wanted in condition.items():
        if key == "$and":
            if not all(_matches(run, part) for part in wanted):
                return False
            continue
        names = {"group": "groupName", "jobType": "jobType", "displayName": "displayName"}
        if key in names:
            value: Any = run.fields.get(names[key])
        elif key in ("name", "state"):
            value = getattr(run, key)
        elif key.startswith("config."):
            value = run.config.get(key.removeprefix("config.").removesuffix(".value"), {}).get("value")
        else:
            raise GraphQLError(f"runs cannot be filtered by {key}")
        if isinstance(wanted, dict):
            (operator, operand), *rest = wanted.items()
            if rest or operator not in ("$in", "$ne"):
                raise GraphQLError(f"unknown condition {wanted}")
            if (value in operand) if operator != "$in" else (value not in operand):
                return False
        elif value != wanted:
            return False
    return True


class _RunView:
    """A run, as the schema shows it."""

    def __init__(self, server: WandbServer, run: Run) -> None:
        self._server, self._run = server, run
        fields = run.fields
        self.id, self.name, self.projectId, self.state = run.id, run.name, "1", run.state
        self.displayName = fields.get("displayName") or run.name
        self.group, self.jobType, self.commit = fields.get("groupName"), fields.get("jobType"), fields.get("commit")
        self.description, self.notes, self.tags = fields.get("description"), fields.get("notes"), fields.get("tags", [])
        self.sweepName, self.readOnly, self.createdAt, self.heartbeatAt = None, False, run.created_at, run.created_at
        self.config, self.summaryMetrics, self.systemMetrics = json.dumps(run.config), json.dumps(run.summary), "{}"
        self.historyLineCount = len(run.lines.get("wandb-history.jsonl", []))
        self.eventsLineCount = len(run.lines.get("wandb-events.jsonl", []))
        self.logLineCount = len(run.lines.get("output.log", []))
        self.historyTail = json.dumps(run.lines.get("wandb-history.jsonl", [])[-1:])
        self.eventsTail = json.dumps(run.lines.get("wandb-events.jsonl", [])[-1:])
        last_step = run.history[-1].get("_step", -1) if run.history else -1
        self.historyKeys: dict[str, Any] = {"keys": {}, "lastStep": last_step, "sets": []}
        self.user = {"id": "VXNlcjox", "name": "Loop Back", "username": ENTITY}

    def project(self, info: Any) -> _Project:
        return _Project(self._server, self._run.project)

    def wandbConfig(self, info: Any, keys: list[str]) -> str:
        internal = self._run.config.get("_wandb", {}).get("value", {})
        return json.dumps({key: internal[key] for key in keys if key in internal})

    def history(self, info: Any, minStep: int = 0, maxStep: int | None = None, samples: int | None = None) -> list[str]:
        end = float("inf") if maxStep is None else maxStep
        return [json.dumps(row) for row in self._run.history if minStep <= row.get("_step", 0) < end][:samples]

    def parquetHistory(self, info: Any, liveKeys: list[str]) -> dict[str, Any]:
        """Young runs have no parquet files yet: all of their history is live."""
        return {"parquetUrls": [], "liveData": self._run.history}


def _build_schema() -> GraphQLSchema:
    schema = build_schema(_SCHEMA)
    for name in ("JSONString", "JSON", "Int64", "DateTime"):
        schema.type_map[name].serialize = lambda value: value  # type: ignore[attr-defined]
    collection = schema.type_map["ArtifactCollection"]
    collection.resolve_type = lambda *_: "ArtifactSequence"  # type: ignore[attr-defined]
    return schema


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[Any] = set()

    def cut_connections(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


def _handler_of(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.server.connections.add(self.connection)  # type: ignore[attr-defined]

        def finish(self) -> None:
            self.server.connections.discard(self.connection)  # type: ignore[attr-defined]
            super().finish()

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            raw = self._body()
            if self.path.startswith("/sdk/otel/"):  # the client's own telemetry
                return self._answer(200, {})
            stream = re.fullmatch(r"/files/([^/]+/[^/]+/[^/]+)/file_stream", self.path)
            try:
                body = json.loads(raw)
            except ValueError:
                server.problems.append(f"{self.path}: the body is not JSON")
                return self._answer(400, {"error": "not JSON"})
            kind = "file_stream" if stream else _operation(body)
            if not self._serves(Request(kind, self.path, body)):
                return None
            if stream:
                try:
                    return self._answer(200, server.file_stream(stream.group(1), body))
                except (KeyError, TypeError, ValueError) as error:
                    server.problems.append(f"{self.path}: {error!r}")
                    return self._answer(400, {"error": str(error)})
            if self.path == "/graphql":
                return self._answer(200, server.graphql(body))
            server.problems.append(f"POST {self.path}")
            return self._answer(404, {})

        def do_PUT(self) -> None:
            body = self._body()
            if self._serves(Request("file", self.path, None)):
                server.files[self.path.removeprefix("/storage/")] = body
                self._answer(200, {})

        def do_GET(self) -> None:
            if self._serves(Request("file", self.path, None)):
                server.problems.append(f"GET {self.path}")
                self._answer(404, {})

        def _serves(self, request: Request) -> bool:
            """Log the request and answer it with the fault there is, if any."""
            with server.lock:
                server.requests.append(request)
            fault = server.fault(request) if server.fault else None
            if fault == "hang":
                server._stopping.wait(60)
                fault = "cut"
            if fault == "cut":
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(2)
                return False
            if isinstance(fault, int):
                self._answer(fault, {"errors": [{"message": f"{fault}, as the test wants"}]})
                return False
            if request.kind != "file" and not self._knows_key():
                self._answer(401, {"errors": [{"message": "user is not logged in"}]})
                return False
            return True

        def _knows_key(self) -> bool:
            kind, _, secret = self.headers.get("Authorization", "").partition(" ")
            return kind == "Basic" and base64.b64decode(secret).decode() == f"api:{API_KEY}"

        def _body(self) -> bytes:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw

        def _answer(self, status: int, answer: Any) -> None:
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            if status == 429 and server.retry_after is not None:
                self.send_header("Retry-After", str(server.retry_after))
            self.end_headers()
            self.wfile.write(raw)

    return Handler


def _operation(body: dict[str, Any]) -> str:
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", body.get("query", ""))
    return body.get("operationName") or (match.group(1) if match else "unnamed")


if __name__ == "__main__":
    with WandbServer() as running:
        print(running.url, flush=True)
        while True:
            time.sleep(1)
