"""Print all parameters, including the defaults: python -m elmolib.settings params/tiny.yaml"""

import sys

from elmolib.settings.parameters import Parameters

for path in sys.argv[1:]:
    print(Parameters.from_yaml(path).as_yaml(), end="")
