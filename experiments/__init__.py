"""Experiments to run. Modules in a folder `experiments` of the working directory are added to these."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
