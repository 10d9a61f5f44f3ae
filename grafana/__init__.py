"""What Grafana is provisioned with, and the source it is generated from."""
