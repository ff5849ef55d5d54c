"""What people ask, and the package they want among the first three, of those that are installed here.

ALWAYS are packages that no Debian is without; OFTEN are asked for where they are installed.
"""

import pytest
from package_search.index import Index
from package_search.installed import STATUS
from package_search.packages import parse

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="no Debian: there are no packages to be found here")
ALWAYS = [
    ("add a user to a group", "adduser"),
    ("adduser", "adduser"),
    ("deluser", "adduser"),
    ("commandline package manager", "apt"),
    ("GNU Bourne Again SHell", "bash"),
    ("basic file, shell and text utilities", "coreutils"),
    ("ls cp mv", "coreutils"),
    ("POSIX compliant shell", "dash"),
    ("debian package management system", "dpkg"),
    ("find files on the system", "findutils"),
    ("search for patterns in text", "grep"),
    ("compare two files", "diffutils"),
    ("compress files", "gzip"),
    ("set or show the host name", "hostname"),
    ("change and administer passwords", "passwd"),
    ("stream editor", "sed"),
    ("tar archiving utility", "tar"),
    ("time zones and daylight saving", "tzdata"),
    ("standard C library", "libc6"),
    ("pattern scanning awk", "mawk"),
]
OFTEN = [
    ("process json on the command line", "jq"),
    ("libssl header files", "libssl-dev"),
    ("cryptographic utility for ssl", "openssl"),
    ("c++ compiler", "g++"),
    ("transfer data with url syntax", "curl"),
    ("retrieve files from the web", "wget"),
    ("distributed version control system", "git"),
    ("trace system calls of a process", "strace"),
    ("detect memory management bugs", "valgrind"),
    ("unpack zip files", "unzip"),
    ("list open files", "lsof"),
    ("terminal multiplexer", "tmux"),
    ("ssh client for remote machines", "openssh-client"),
    ("sqlite command line", "sqlite3"),
    ("read manual pages", "man-db"),
    ("ca certificates", "ca-certificates"),
    ("python virtual environments", "python3-venv"),
    ("recognize the type of a file", "file"),
]
NAMES = {package.name for package in parse(STATUS.read_text(errors="replace"))} if STATUS.exists() else set[str]()


@pytest.fixture(scope="module")
def index() -> Index:
    return Index(parse(STATUS.read_text(errors="replace")))


@pytest.mark.parametrize(("query", "name"), [*ALWAYS, *(case for case in OFTEN if case[1] in NAMES)])
def test_wanted_package_is_among_the_first_three(index: Index, query: str, name: str) -> None:
    assert name in [hit.package.name for hit in index.search(query, limit=3, filters=[])]


@pytest.mark.parametrize("name", sorted(NAMES.intersection(name for _, name in [*ALWAYS, *OFTEN])))
def test_package_asked_for_by_its_name_is_first(index: Index, name: str) -> None:
    assert index.search(name, limit=1, filters=[])[0].package.name == name


def test_every_installed_package_is_there_once(index: Index) -> None:
    assert len({package.name for package in index.packages}) == len(index.packages) >= len(ALWAYS) / 2
