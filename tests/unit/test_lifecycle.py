from sykube.cluster import lifecycle
from sykube.cluster.lifecycle import InitOptions
from sykube.cluster.spec import ClusterSpec
import cProfile, pstats, time
def test_x(world):
    def go():
        t=time.time()
        lifecycle.init(ClusterSpec(name="fake", workers=1, dns=("127.0.0.53",)), InitOptions(), world.ui())
        lifecycle.delete("fake", world.ui())
        print(time.time()-t)
    go(); go()
    p=cProfile.Profile(); p.enable(); go(); p.disable()
    pstats.Stats(p).sort_stats("tottime").print_stats(25)
    assert 0
