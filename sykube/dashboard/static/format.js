// Numbers and times as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  let left = value;
  while (left >= 999.5 && unit < UNITS.length - 1) {
    left /= 1000;
    unit += 1;
  }
  return `${left < 9.95 && unit > 0 ? left.toFixed(1) : Math.round(left)} ${UNITS[unit]}`;
}

export function cores(value) {
  if (value === null || value === undefined) return "–";
  return value.toFixed(value < 10 ? 2 : 1);
}

export function millicores(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value * 1000)}m`;
}

export const percent = (value) => `${value.toFixed(1)} %`;

// As Slurm writes it.
export function duration(seconds) {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const whole = Math.round(seconds);
  const days = Math.floor(whole / 86400);
  return `${days ? `${days}-` : ""}${two((whole % 86400) / 3600)}:${two((whole % 3600) / 60)}:${two(whole % 60)}`;
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

export function age(timestamp, now = Date.now()) {
  const since = Date.parse(timestamp);
  if (Number.isNaN(since)) return "–";
  const seconds = Math.max(0, Math.round((now - since) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
