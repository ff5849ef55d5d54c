"""The contracts in the catalog as each caller may see them: read once, for catalog and reflection alike."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway.catalog import Contract, Tool
from gateway.services.symbols import Shelf, Symbols
from gateway.services.visible import View
from governance.contract.types import full_name
from governance.words import Caller


class Contracts:
    """What was read of the contracts, for as long as the catalog has them."""

    def __init__(self, view: View) -> None:
        """Nothing is read yet."""
        self._view = view
        self._shelf = Shelf()
        self._version = -1
        # Package of a file -> names of the tools whose contracts hold it.
        self._packages: dict[str, list[str]] = {}

    def whole(self, contract: Contract) -> Symbols:
        """What the contract defines, whoever may see it."""
        self._keep_up()
        return self._shelf.symbols(contract)

    def seen(self, contract: Contract, caller: Caller) -> Symbols:
        """What of the contract the caller may see."""
        return self.whole(contract).seen(lambda service: self._sees(service, caller))

    def files(self, contract: Contract, caller: Caller) -> list[FileDescriptorProto]:
        """The contract's files, without the services that the caller may not see and the types that only they use."""
        services = (full_name(file.package, service.name) for file in contract.files for service in file.service)
        if all(self._sees(service, caller) for service in services):
            return list(contract.files)
        return [file.proto for file in self.seen(contract, caller).files.values()]

    def tools_around(self, symbol: str) -> Iterator[Tool]:
        """The tools that have files of a package that the symbol can be in; those of that package first."""
        self._keep_up()
        tools = self._view.catalog.tools
        packages = [package for package in self._packages if not package or symbol.startswith(f"{package}.")]
        services = sorted({service for package in packages for service in self._packages[package]})
        for own in (True, False):
            for service in services:
                if (service.rpartition(".")[0] in packages) is own:
                    yield tools[service]

    def _sees(self, service: str, caller: Caller) -> bool:
        return self._view.tool(service, caller) is not None

    def _keep_up(self) -> None:
        """Forget the contracts that are gone."""
        catalog = self._view.catalog
        if catalog.version == self._version:
            return
        self._version = catalog.version
        self._shelf.keep({tool.contract.digest for tool in catalog.tools.values()})
        self._packages = {}
        for service, tool in catalog.tools.items():
            for package in {file.package for file in tool.contract.files}:
                self._packages.setdefault(package, []).append(service)
