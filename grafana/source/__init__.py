"""The dashboards and alert rules as a person writes them; `grafana.generate` renders them."""
