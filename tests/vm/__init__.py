"""sykube on a Debian 13 machine: systemd, cgroup v2, logins, reboots. See __main__.py."""
