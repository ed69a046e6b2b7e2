"""What to run. A folder of this name in the working directory adds its modules to these."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
