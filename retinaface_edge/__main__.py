"""`python -m retinaface_edge`."""

from .cli.main import main

raise SystemExit(main())
