"""What the client does, in order: a name and a call each. Later cases may build on earlier ones."""

from collections.abc import Callable

from conformance.answers import Data
from conformance.client import Client

Case = Callable[[Client], Data]
