// The page with its outlines: drawn in pixels of the picture, moved and scaled as one.

const SVG = "http://www.w3.org/2000/svg";
const LARGEST = 8, STEP = 1.25, MOVE = 60;

export class View {
  constructor(stage, sheet, { onHover, onZoom }) {
    Object.assign(this, { stage, sheet, onHover, onZoom, scale: 1, x: 0, y: 0, width: 1, height: 1, chosen: -1 });
    this.image = document.createElement("img");
    this.image.alt = "";
    this.svg = document.createElementNS(SVG, "svg");
    sheet.append(this.image, this.svg);
    this.pointers = new Map();
    this.isFitted = true;
    new ResizeObserver(() => this.isFitted && this.fit()).observe(stage);
    stage.addEventListener("wheel", event => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", event => this.#down(event));
    stage.addEventListener("pointermove", event => this.#move(event));
    for (const type of ["pointerup", "pointercancel"]) stage.addEventListener(type, event => this.#up(event));
    stage.addEventListener("pointerleave", event => event.pointerType === "touch" || this.choose(-1));
  }

  // Shows a picture of that many pixels; `source` may have fewer of them.
  show(source, width, height) {
    Object.assign(this, { width, height });
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    this.image.src = source;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.draw([]);
    this.fit();
  }

  draw(instances) {
    this.instances = instances;
    this.polygons = instances.map((instance, index) => {
      const polygon = document.createElementNS(SVG, "polygon");
      polygon.setAttribute("points", instance.polygon.map(point => point.join()).join(" "));
      polygon.setAttribute("class", `c${index % 5}`);
      polygon.dataset.index = index;
      return polygon;
    });
    this.svg.replaceChildren(...this.polygons);
    this.choose(-1);
  }

  // Marks an instance and tells where it is on the screen; -1 for none.
  choose(index) {
    this.polygons?.[this.chosen]?.classList.remove("chosen");
    this.chosen = index;
    const polygon = this.polygons?.[index];
    if (!polygon) return this.onHover(null);
    polygon.classList.add("chosen");
    const box = polygon.getBoundingClientRect(), stage = this.stage.getBoundingClientRect();
    this.onHover({
      index,
      score: this.instances[index].score,
      x: Math.min(Math.max(box.left - stage.left, 0), stage.width - 90),
      y: Math.min(Math.max(box.top - stage.top, 30), stage.height),
    });
  }

  // Goes to the next or previous instance, in reading direction: they come bottom-up.
  step(steps) {
    const count = this.instances?.length;
    if (!count) return;
    const index = this.chosen < 0 ? (steps > 0 ? count - 1 : 0) : (this.chosen - steps + count) % count;
    this.#reveal(this.instances[index].polygon);
    this.choose(index);
  }

  fit() {
    const { clientWidth, clientHeight } = this.stage;
    this.scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.#apply();
    this.#setFitted(true);
  }

  // Scales by a factor; what is at (x, y) of the stage stays there.
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const smallest = Math.min(1, this.stage.clientWidth / this.width, this.stage.clientHeight / this.height) / 2;
    const scale = Math.min(Math.max(this.scale * factor, smallest), LARGEST);
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.#apply();
  }

  move(x, y) {
    this.x += x;
    this.y += y;
    this.#apply();
  }

  // Takes a key of the stage; whether it means anything.
  key(name) {
    const keys = {
      "+": () => this.zoom(STEP), "=": () => this.zoom(STEP), "-": () => this.zoom(1 / STEP), 0: () => this.fit(),
      ArrowLeft: () => this.move(MOVE, 0), ArrowRight: () => this.move(-MOVE, 0),
      ArrowUp: () => this.move(0, MOVE), ArrowDown: () => this.move(0, -MOVE),
      n: () => this.step(1), p: () => this.step(-1), Escape: () => this.choose(-1),
    };
    keys[name]?.();
    return name in keys;
  }

  #setFitted(isFitted) {
    this.isFitted = isFitted;
    this.stage.classList.toggle("fitted", isFitted);
  }

  #apply() {
    this.#setFitted(false);
    // Some of the page stays in sight.
    const margin = 40, { clientWidth, clientHeight } = this.stage;
    this.x = Math.min(Math.max(this.x, margin - this.width * this.scale), clientWidth - margin);
    this.y = Math.min(Math.max(this.y, margin - this.height * this.scale), clientHeight - margin);
    this.sheet.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.onZoom(this.scale);
    if (this.chosen >= 0) this.choose(this.chosen);
  }

  #reveal(polygon) {
    const xs = polygon.map(point => point[0] * this.scale + this.x), ys = polygon.map(point => point[1] * this.scale + this.y);
    const { clientWidth, clientHeight } = this.stage;
    if (Math.min(...xs) >= 0 && Math.max(...xs) <= clientWidth && Math.min(...ys) >= 0 && Math.max(...ys) <= clientHeight) return;
    this.move(clientWidth / 2 - (Math.min(...xs) + Math.max(...xs)) / 2, clientHeight / 2 - (Math.min(...ys) + Math.max(...ys)) / 2);
  }

  #place(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #wheel(event) {
    event.preventDefault();
    const { x, y } = this.#place(event);
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), x, y);
  }

  #down(event) {
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.#place(event));
    this.stage.classList.add("dragging");
    this.#hover(event);
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.#hover(event);
    const now = this.#place(event);
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const distance = place => Math.hypot(place.x - other.x, place.y - other.y);
      this.zoom(distance(now) / Math.max(1, distance(before)), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else {
      this.move(now.x - before.x, now.y - before.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.stage.classList.remove("dragging");
  }

  #hover(event) {
    const polygon = document.elementFromPoint(event.clientX, event.clientY)?.closest("polygon");
    this.choose(polygon ? Number(polygon.dataset.index) : -1);
  }
}
