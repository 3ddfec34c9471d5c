// What the server has sent, and who wants to know.

const POINTS = 450;
const DISK_POINTS = 240;

export const store = {
  cluster: null,
  objects: null,
  slurm: null,
  efficiency: null,
  usage: [],
  disk: [],
  // connecting, live, lost (the browser tries again), ended (it does not)
  connection: "connecting",
  since: Date.now(),
};

// Nothing of a cluster that does not run: its pods are gone.
const now = (found) => (["stopped", "paused", "gone"].includes(store.cluster?.status) ? null : found);

// What the API said last.
export const objectsNow = () => now(store.objects);

// What the Slurm clusters said last; null where nothing is known yet.
export const slurmNow = () => now(store.slurm)?.clusters ?? null;

const listeners = new Set();
let queued = false;

export function onChange(listener) {
  listeners.add(listener);
}

// Several messages at once are one change.
export function changed() {
  if (queued) return;
  queued = true;
  setTimeout(() => {
    queued = false;
    for (const listener of listeners) listener();
  }, 30);
}

function connection(state) {
  if (store.connection === state) return;
  store.connection = state;
  store.since = Date.now();
  changed();
}

export function connect() {
  const source = new EventSource("events");
  const on = (name, take) =>
    source.addEventListener(name, (event) => {
      take(JSON.parse(event.data));
      changed();
    });
  on("history", (data) => {
    store.usage = data.usage;
    store.disk = data.disk;
  });
  on("usage", (point) => {
    store.usage = [...store.usage.slice(1 - POINTS), point];
  });
  on("disk", (point) => {
    store.disk = [...store.disk.slice(1 - DISK_POINTS), point];
  });
  on("cluster", (data) => {
    store.cluster = data;
  });
  on("objects", (data) => {
    store.objects = data;
  });
  on("slurm", (data) => {
    store.slurm = data;
  });
  on("efficiency", (data) => {
    store.efficiency = data;
  });
  source.onopen = () => connection("live");
  source.onerror = () =>
    connection(source.readyState === EventSource.CLOSED ? "ended" : "lost");
}

export async function ask(action, body) {
  let answer;
  try {
    answer = await fetch(action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("sykube dashboard does not answer");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.problem ?? `refused (${answer.status})`);
}
