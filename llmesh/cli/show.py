"""Tools, methods and endpoints as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options

# From here on there is room for what a tool does beside its name.
WIDE_COLUMNS = 100
INDENT = 2


@dataclass(frozen=True, slots=True)
class ToolsTable:
    """One row a tool; where the terminal is narrow, what it does comes below it."""

    tools: Sequence[pb.Tool]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As rich asks."""
        if options.max_width >= WIDE_COLUMNS:
            rows = table("tool", "domain", "ready", "what it does")
            for tool in self.tools:
                rows.add_row(*_cells(tool), escape(tool.summary))
            yield rows
            return
        widths = [max((len(getattr(tool, key)) for tool in self.tools), default=0) for key in ("service", "domain")]
        for tool in self.tools:
            name, domain, ready = _cells(tool)
            gaps = [
                " " * (width - len(text) + 2) for width, text in zip(widths, (tool.service, tool.domain), strict=True)
            ]
            yield Text.from_markup(f"{name}{gaps[0]}{domain}{gaps[1]}{ready}", overflow="fold")
            summary = Text(tool.summary, style="dim", overflow="fold")
            summary.no_wrap = False
            yield Padding(summary, (0, 0, 0, INDENT))


def tools_table(tools: Sequence[pb.Tool]) -> ToolsTable:
    """One row a tool."""
    return ToolsTable(tools)


def _cells(tool: pb.Tool) -> tuple[str, str, str]:
    return f"[bold]{tool.service}[/]", escape(tool.domain), _ready(tool)


def results_table(results: Sequence[pb.SearchResult]) -> Table:
    """One row a tool found, best first."""
    rows = table("score", "tool", "what it does")
    for result in results:
        rows.add_row(f"{result.score:.2f}", f"[bold]{result.tool.service}[/]", escape(result.tool.summary))
    return rows


def print_found(console: Console, found: pb.SearchToolsResponse, query: str) -> None:
    """The tools that a search found, and why only words were compared, if so."""
    console.print(results_table(found.results) if found.results else f"nothing that you may see fits `{escape(query)}`")
    if found.words_alone:
        console.print(f"[dim]by words alone: {escape(found.words_alone)}[/]")


def print_tool(console: Console, tool: pb.Tool, forms: Mapping[str, str]) -> None:
    """A tool's product sheet, then its methods. forms: requests to be filled in, by the names of methods."""
    console.print(f"[bold]{tool.service}[/]  {escape(tool.name)}")
    console.print(escape(tool.summary))
    sheet = Table.grid(padding=(0, 2))
    for label, value in _sheet(tool):
        if value:
            sheet.add_row(f"[dim]{label}[/]", escape(value))
    console.print(sheet)
    for method in tool.methods:
        _print_method(console, tool, method, forms.get(method.name, ""))


def print_prompt(console: Console, prompt: pb.ToolPrompt) -> None:
    """A prompt: what it is rendered from, what it implements, and the file."""
    console.print(f"[bold]{escape(prompt.name)}[/]  sha256 {prompt.digest}")
    implements = ", ".join(prompt.methods)
    told = f"implements {implements}, from" if implements else "rendered from"
    console.print(escape(f"{told} {prompt.request_type}"), style="dim")
    console.print(Padding(Text(prompt.text.rstrip("\n"), overflow="fold"), (0, 0, 0, INDENT)))


def _sheet(tool: pb.Tool) -> list[tuple[str, str]]:
    stage = (
        options.Stage.Name(tool.lifecycle.stage).removeprefix("STAGE_").lower().replace("unspecified", "experimental")
    )
    ends = f", until {tool.lifecycle.deprecated_from}" if tool.lifecycle.deprecated_from else ""
    instead = f"; instead: {tool.lifecycle.successor}" if tool.lifecycle.successor else ""
    return [
        ("blocked", _blocked(tool.blocked) if tool.HasField("blocked") else ""),
        ("domain", tool.domain),
        ("owner", ", ".join(filter(None, (tool.product_owner, tool.owner_team)))),
        ("contact", tool.contact),
        ("lifecycle", f"{stage}{ends}{instead}"),
        ("promise", _promise(tool)),
        ("documentation", tool.documentation),
        ("models", ", ".join(tool.models)),
        ("prompts", ", ".join(tool.prompts)),
        ("data", ", ".join(tool.data_sources)),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(tool.labels.items()))),
        ("endpoints", f"{tool.ready_count} of {tool.endpoint_count} ready"),
        ("transport", "unprotected: plain TCP" if tool.unprotected_transport else ""),
        ("contract", tool.contract_digest),
    ]


def _blocked(blocked: pb.Blocked) -> str:
    until = f", until {blocked.until.ToJsonString()}" if blocked.HasField("until") else ""
    return f"{blocked.reason}{until}"


def _promise(tool: pb.Tool) -> str:
    latency_ms = tool.slo.latency_p95.ToMilliseconds()
    latency = f"95 of 100 calls within {latency_ms} ms" if latency_ms else ""
    availability = f"{tool.slo.availability:.4%} available" if tool.slo.availability else ""
    return ", ".join(filter(None, (latency, availability)))


def _print_method(console: Console, tool: pb.Tool, method: pb.Method, form: str) -> None:
    effect = options.Effect.Name(method.effect).removeprefix("EFFECT_").lower()
    takes = ("stream " if method.client_streaming else "") + method.request_type
    gives = ("stream " if method.server_streaming else "") + method.response_type
    facts = [effect, f"at most {method.deadline.ToSeconds()} s" if method.HasField("deadline") else ""]
    facts += [f"blocked: {_blocked(method.blocked)}" if method.HasField("blocked") else ""]
    facts += ["needs approval" if method.needs_approval else "", "you may not call it" if method.denied else ""]
    console.print(f"\n[bold]{method.name}[/] ({escape(', '.join(filter(None, facts)))})  {escape(method.summary)}")
    console.print(f"  {takes} -> {gives}", style="dim")
    examples = [(example.summary.rstrip("."), example.request_json) for example in method.examples]
    for summary, request in [*examples, *([("To fill in", form)] if form else [])]:
        console.print(f"  {escape(summary)}:")
        console.print(f"    {escape(call_line(tool.service, method.name, request))}", style="cyan")


def call_line(service: str, method: str, request_json: str) -> str:
    """The command that makes a call."""
    quoted = request_json.replace("'", "'\\''")
    return f"llmesh call {service}/{method} '{quoted}'"


def print_endpoint(console: Console, endpoint: pb.Endpoint) -> None:
    """An endpoint and the steps of its admission."""
    state = pb.Endpoint.State.Name(endpoint.state).removeprefix("STATE_").lower()
    colour = {"ready": "green", "pending": "yellow"}.get(state, "red")
    held = "  [yellow]held: most of what this source named vanished at once[/]" if endpoint.held else ""
    console.print(f"[bold]{escape(endpoint.address)}[/]  [{colour}]{state}[/]  (from {escape(endpoint.source)}){held}")
    for step in endpoint.steps:
        mark = "[green]passed[/]" if step.passed else f"[red]{escape(step.reason or 'failed')}[/]"
        about = f" {escape(step.service)}" if step.service else ""
        console.print(f"  {step.name:<9}{mark}{about}  {escape(step.message)}")


def _ready(tool: pb.Tool) -> str:
    if tool.HasField("blocked"):
        return "[red]blocked[/]"
    colour = "green" if tool.ready_count else "red"
    return f"[{colour}]{tool.ready_count}/{tool.endpoint_count}[/]"


def table(*columns: str) -> Table:
    """A plain table with these columns: where it is narrow the last one wraps, and no name is cut."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, no_wrap=column != columns[-1], overflow="fold")
    return made
