"""`python -m retinaface_edge`."""

from .cli import main

raise SystemExit(main())
