// Adds copy buttons and zoomable charts. The page is complete without it.
// Untrusted text goes through textContent only.
"use strict";
(() => {
  const trials = JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  for (const code of document.querySelectorAll("code.copy")) {
    if (!navigator.clipboard) break;
    const button = document.createElement("button");
    button.className = "copy-button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    });
    code.after(button);
  }

  const line = (label, name, extra) => ({ label, stroke: colour(name), width: 1.5, points: { show: false }, ...extra });
  const steps = (label, name) => line(label, name, { paths: uPlot.paths.stepped({ align: 1 }), fill: colour(name) + "55" });
  const seconds = (u, value) => (value == null ? "–" : value.toPrecision(3) + " s");
  const rate = (u, value) => (value == null ? "–" : value.toFixed(1) + "/s");

  const named = { fault: "refuted", detected: "p95", recovered: "held", healed: "muted" };

  // The drawing's bands and marks, behind and above each chart's lines.
  const scenery = (trial) => ({
    hooks: {
      drawClear: (u) => {
        u.ctx.save();
        u.ctx.fillStyle = colour("band");
        for (const [name, from, to] of trial.phases) {
          if (name !== "fault" || from === null) continue;
          const left = Math.max(u.valToPos(from, "x", true), u.bbox.left);
          const right = Math.min(u.valToPos(to === null ? trial.until_s : to, "x", true), u.bbox.left + u.bbox.width);
          if (right > left) u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
        }
        u.ctx.restore();
      },
      draw: (u) => {
        for (const [at, kind] of trial.marks) {
          const x = u.valToPos(at, "x", true);
          if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
          u.ctx.fillStyle = colour(named[kind] || "muted");
          u.ctx.fillRect(x, u.bbox.top, devicePixelRatio, u.bbox.height);
        }
      },
    },
  });

  function charts(trial, key) {
    const edges = [...trial.offered.map((_, i) => i * trial.width_s), trial.until_s];
    const held = (values) => [...values, values[values.length - 1]]; // a step needs an end
    const perSecond = (values) => held(values.map((n, i) => n / (edges[i + 1] - edges[i])));
    const plain = (values) => values.map((ms) => (ms === null || ms < 0 ? null : ms / 1000));
    const middle = trial.offered.map((_, i) => (edges[i] + edges[i + 1]) / 2);
    const words = { failed: "failed", wrong: "cut short or wrong", shed: "rejected (429)" };
    const kinds = Object.keys(trial.bad);
    const second = { label: "at", value: (u, x) => (x == null ? "–" : x.toFixed(2) + " s") };
    const all = [
      ["requests per second", 130, [edges, perSecond(trial.offered), perSecond(trial.ok)],
        [{ ...line("offered", "offered", { paths: uPlot.paths.stepped({ align: 1 }) }), value: rate }, { ...steps("answered in full", "ok"), value: rate }]],
      ["latency, seconds (log)", 200, [middle, plain(trial.ttft_p50), plain(trial.ttft_p95), plain(trial.e2e_p95)],
        [line("first token p50", "p50", { value: seconds }), line("first token p95", "p95", { value: seconds }), line("whole answer p95", "e2e", { value: seconds, dash: [4, 3] })], 3],
      ["in flight, most at once", 110, [edges, held(trial.inflight)], [{ ...steps("in flight", "e2e"), value: (u, n) => (n == null ? "–" : n) }]],
    ];
    if (kinds.length) {
      all.splice(2, 0, ["failures per second", 120, [edges, ...kinds.map((kind) => perSecond(trial.bad[kind]))], kinds.map((kind) => ({ ...steps(words[kind], kind), value: rate }))]);
    }
    const sync = uPlot.sync(key);
    const drawn = [];
    const zoom = (u, scale) => {
      if (scale !== "x") return;
      const { min, max } = u.scales.x;
      for (const other of drawn) if (other !== u && (other.scales.x.min !== min || other.scales.x.max !== max)) other.setScale("x", { min, max });
    };
    return { all, second, sync, drawn, zoom };
  }

  function explore(figure, trial, key) {
    const live = document.createElement("div");
    live.className = "live";
    figure.querySelector(".drawing").after(live);
    const legend = document.createElement("p");
    legend.className = "moments";
    for (const [, kind, label] of trial.marks) {
      const moment = document.createElement("span");
      moment.className = "k-" + kind;
      moment.textContent = label;
      legend.append(moment);
    }
    live.append(legend);
    const { all, second, sync, drawn, zoom } = charts(trial, key);
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    for (const [title, height, data, series, distr] of all) {
      const heading = document.createElement("h4");
      heading.textContent = title;
      live.append(heading);
      const chart = new uPlot({
        width: figure.clientWidth,
        height,
        series: [second, ...series],
        scales: { x: { time: false }, y: distr ? { distr } : { range: (u, low, high) => [0, Math.max(high * 1.08, 1)] } },
        axes: [{ ...axis, size: 26 }, { ...axis, size: 52 }],
        cursor: { sync: { key: sync.key, setSeries: false }, drag: { x: true, y: false } },
        hooks: { setScale: [zoom] },
        plugins: [scenery(trial)],
      }, data, live);
      drawn.push(chart);
    }
    new ResizeObserver(() => {
      for (const chart of drawn) if (figure.clientWidth) chart.setSize({ width: figure.clientWidth, height: chart.height });
    }).observe(figure);
    return live;
  }

  document.querySelectorAll("figure.chart").forEach((figure) => {
    const place = Number(figure.dataset.trial);
    const drawing = figure.querySelector(".drawing");
    const bar = document.createElement("div");
    const button = document.createElement("button");
    bar.className = "explore";
    button.type = "button";
    button.textContent = "Explore: read values, drag to zoom";
    button.setAttribute("aria-pressed", "false");
    let live = null;
    button.addEventListener("click", () => {
      const opening = drawing.hidden === false;
      drawing.hidden = opening;
      if (opening && live === null) live = explore(figure, trials[place], "trial-" + place);
      else live.hidden = !opening;
      button.setAttribute("aria-pressed", String(opening));
      button.textContent = opening ? "Back to the drawing (double-click a chart to reset its zoom)" : "Explore: read values, drag to zoom";
    });
    bar.append(button);
    figure.append(bar);
  });
})();
