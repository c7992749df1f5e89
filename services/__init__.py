"""The service: sampling plans over REST and rows as a stream, over one workspace. `server.serve` runs it."""

from importlib.util import find_spec

from dataforge.errors import MissingDependency

_NEEDED = ("fastapi", "httptools", "prometheus_client", "pydantic_settings", "sqlalchemy", "uvicorn")

_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise MissingDependency(
        f"the service needs {', '.join(_missing)}", hint="install it with `pip install 'dataforge-lm[service]'`"
    )
