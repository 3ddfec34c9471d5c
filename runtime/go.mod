module sykube/runtime

go 1.24
