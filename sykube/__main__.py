from sykube.cli.main import main

main()
